// A backend in small: tests compile it before and behind the patch, and run it. mpiOp.at(x) in a comment is no use.
#include "stand_in.hpp"

#ifdef USE_C10D_MPI

namespace c10d {

#define MPI_CHECK(call)                                               \
  do {                                                                \
    const int status = call;                                          \
    TORCH_CHECK(status == MPI_SUCCESS, "MPI says ", status, " to " #call); \
  } while (0)

namespace {

// 归约
std::map<ReduceOp::RedOpType, MPI_Op> mpiOp = {
    {ReduceOp::MIN, MPI_MIN},
    {ReduceOp::MAX, MPI_MAX},
    {ReduceOp::SUM, MPI_SUM},
    {ReduceOp::PRODUCT, MPI_PROD},
};
std::map<at::ScalarType, MPI_Datatype> mpiDatatype = {
    {at::kDouble, MPI_DOUBLE},
    {at::kFloat, MPI_FLOAT},
    {at::kInt, MPI_INT},
}; // 类型

constexpr int million = 1'000'000;
const char* title = "mpiDatatype.at(kHalf) in a string, \" and \\";

} // namespace

struct Group {
  MPI_Comm comm = MPI_COMM_WORLD;

  void broadcast(at::Tensor& data, const Options& opts) {
    MPI_CHECK(MPI_Bcast(data.data_ptr(), data.numel(), mpiDatatype.at(data.scalar_type()), opts.rootRank, comm));
  }

  void allreduce(std::vector<at::Tensor>& tensors, const Options& opts) {
    auto run = [opts, this](std::vector<at::Tensor>& tensors) {
      MPI_CHECK(MPI_Allreduce(
          MPI_IN_PLACE,
          tensors[0].data_ptr(),
          tensors[0].numel(),
          mpiDatatype.at(tensors[0].scalar_type()),
          mpiOp.at(opts.reduceOp),
          comm));
    };
    run(tensors);
  }

  void reduce(at::Tensor& data, const Options& opts, bool isRoot) {
    MPI_CHECK(MPI_Reduce(
        isRoot ? MPI_IN_PLACE : data.data_ptr(),
        isRoot ? data.data_ptr() : nullptr,
        data.numel(),
        mpiDatatype /* the type */.at(data.scalar_type()),
        mpiOp.at(
            opts.reduceOp /* the operation */),
        opts.rootRank,
        comm));
  }

  void allgather(at::Tensor& out, at::Tensor& in) {
    MPI_CHECK(MPI_Allgather(
        in.data_ptr(),
        in.numel(),
        mpiDatatype.at(in.scalar_type()),
        out.data_ptr(),
        in.numel(),
        mpiDatatype.at(out.scalar_type()),
        comm));
  }

  void reduceScatter(at::Tensor& out, at::Tensor& in, const Options& opts) {
    MPI_CHECK(MPI_Reduce_scatter_block(
        in.data_ptr(),
        out.data_ptr(),
        out.numel(),
        mpiDatatype.at(in.scalar_type()),
        mpiOp.at(opts.reduceOp),
        comm));
  }
};

} // namespace c10d

#endif // USE_C10D_MPI
