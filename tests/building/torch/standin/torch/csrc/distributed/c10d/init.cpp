// What Python calls, through ctypes. Each function returns the text of an error, or null.

#include <torch/csrc/distributed/c10d/ProcessGroupMPI.hpp>

#include <memory>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

std::unique_ptr<c10d::ProcessGroupMPI> group;

template <class Action>
const char* attempt(Action action) {
  static thread_local std::string text;
  try {
    action();
    return nullptr;
  } catch (const std::exception& error) {
    text = error.what();
    return text.c_str();
  }
}

} // namespace

EXPORT const char* mpi_init() {
  return attempt([] { group = std::make_unique<c10d::ProcessGroupMPI>(); });
}

EXPORT const char* mpi_rank(int* rank) {
  return attempt([=] { *rank = group->getRank(); });
}

EXPORT const char* mpi_size(int* size) {
  return attempt([=] { *size = group->getSize(); });
}

EXPORT const char* mpi_all_reduce(void* data, int64_t count, int dtype, int op) {
  return attempt([=] {
    at::Tensor tensor(data, count, at::ScalarType(dtype));
    group->allreduce(tensor, {c10d::ReduceOp::RedOpType(op)});
  });
}

EXPORT const char* mpi_broadcast(void* data, int64_t count, int dtype, int64_t root) {
  return attempt([=] {
    at::Tensor tensor(data, count, at::ScalarType(dtype));
    group->broadcast(tensor, {root});
  });
}

EXPORT const char* mpi_all_gather(void* into, void* data, int64_t count, int dtype) {
  return attempt([=] {
    at::Tensor output(into, count * group->getSize(), at::ScalarType(dtype));
    at::Tensor input(data, count, at::ScalarType(dtype));
    group->allgather(output, input);
  });
}

EXPORT const char* mpi_barrier() {
  return attempt([] { group->barrier(); });
}

EXPORT const char* mpi_finalize() {
  return attempt([] { c10d::ProcessGroupMPI::finalize(); });
}
