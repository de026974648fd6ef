#include <torch/csrc/distributed/c10d/ProcessGroupMPI.hpp>

#ifdef USE_C10D_MPI

#include <map>

namespace c10d {

#define MPI_CHECK(call)                                              \
  do {                                                               \
    const int status = call;                                         \
    TORCH_CHECK(status == MPI_SUCCESS, "MPI failed with ", status);  \
  } while (0)

namespace {

// What MPI calls the operations
std::map<ReduceOp::RedOpType, MPI_Op> mpiOp = {
    {ReduceOp::MIN, MPI_MIN},
    {ReduceOp::MAX, MPI_MAX},
    {ReduceOp::SUM, MPI_SUM},
    {ReduceOp::PRODUCT, MPI_PROD},
};
// What MPI calls the dtypes
std::map<at::ScalarType, MPI_Datatype> mpiDatatype = {
    {at::kByte, MPI_UNSIGNED_CHAR},
    {at::kChar, MPI_CHAR},
    {at::kDouble, MPI_DOUBLE},
    {at::kFloat, MPI_FLOAT},
    {at::kInt, MPI_INT},
    {at::kLong, MPI_LONG},
    {at::kShort, MPI_SHORT},
};

} // namespace

ProcessGroupMPI::ProcessGroupMPI() {
  int support = MPI_THREAD_SINGLE;
  MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &support));
  TORCH_CHECK(support >= MPI_THREAD_SERIALIZED, "this MPI is for one thread only");
}

int ProcessGroupMPI::getRank() const {
  int rank = -1;
  MPI_CHECK(MPI_Comm_rank(pgComm_, &rank));
  return rank;
}

int ProcessGroupMPI::getSize() const {
  int size = -1;
  MPI_CHECK(MPI_Comm_size(pgComm_, &size));
  return size;
}

void ProcessGroupMPI::allreduce(at::Tensor& data, const AllreduceOptions& opts) {
  MPI_CHECK(MPI_Allreduce(
      MPI_IN_PLACE,
      data.data_ptr(),
      data.numel(),
      mpiDatatype.at(data.scalar_type()),
      mpiOp.at(opts.reduceOp),
      pgComm_));
}

void ProcessGroupMPI::broadcast(at::Tensor& data, const BroadcastOptions& opts) {
  MPI_CHECK(MPI_Bcast(
      data.data_ptr(),
      data.numel(),
      mpiDatatype.at(data.scalar_type()),
      opts.rootRank,
      pgComm_));
}

void ProcessGroupMPI::allgather(at::Tensor& output, at::Tensor& input) {
  MPI_CHECK(MPI_Allgather(
      input.data_ptr(),
      input.numel(),
      mpiDatatype.at(input.scalar_type()),
      output.data_ptr(),
      input.numel(),
      mpiDatatype.at(output.scalar_type()),
      pgComm_));
}

void ProcessGroupMPI::barrier() {
  MPI_CHECK(MPI_Barrier(pgComm_));
}

void ProcessGroupMPI::finalize() {
  MPI_CHECK(MPI_Finalize());
}

} // namespace c10d

#endif // USE_C10D_MPI
