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

// By glmpatch. bf16, fp16 and bool, for every MPI: they travel as plain bits, and are reduced here.
namespace glmpatch {

using Kind = decltype(mpiOp)::key_type;
using Type = decltype(mpiDatatype)::key_type;

// One step of a reduction: in float, rounded once. A NaN wins, as in torch.minimum and torch.maximum.
template <class Number, Kind kind>
void combine(void* in, void* inout, int* count, MPI_Datatype*) {
  const Number* from = static_cast<const Number*>(in);
  Number* into = static_cast<Number*>(inout);
  for (int i = 0; i < *count; ++i) {
    const float a = into[i];
    const float b = from[i];
    if constexpr (kind == ReduceOp::SUM) {
      into[i] = a + b;
    } else if constexpr (kind == ReduceOp::PRODUCT) {
      into[i] = a * b;
    } else if constexpr (kind == ReduceOp::MIN) {
      into[i] = b < a || b != b ? b : a;
    } else {
      into[i] = b > a || b != b ? b : a;
    }
  }
}

// Made at the first use, which is behind MPI_Init; MPI_Finalize takes it away.
template <class Number, Kind kind>
MPI_Op made() {
  static const MPI_Op op = [] {
    MPI_Op fresh = MPI_OP_NULL;
    const int status = MPI_Op_create(&combine<Number, kind>, 1, &fresh);
    TORCH_CHECK(status == MPI_SUCCESS, "MPI_Op_create failed with error code ", status);
    return fresh;
  }();
  return op;
}

// For what it does not know, the error that the map would raise: no other operation may run on those bits.
template <class Number>
MPI_Op madeFor(Kind kind) {
  switch (kind) {
    case ReduceOp::SUM:
      return made<Number, ReduceOp::SUM>();
    case ReduceOp::PRODUCT:
      return made<Number, ReduceOp::PRODUCT>();
    case ReduceOp::MIN:
      return made<Number, ReduceOp::MIN>();
    case ReduceOp::MAX:
      return made<Number, ReduceOp::MAX>();
    default:
      throw std::out_of_range("bf16 and fp16 have only SUM, PRODUCT, MIN and MAX with MPI");
  }
}

MPI_Op logicalFor(Kind kind) {
  switch (kind) {
    case ReduceOp::SUM:
    case ReduceOp::MAX:
      return MPI_LOR;
    case ReduceOp::PRODUCT:
    case ReduceOp::MIN:
      return MPI_LAND;
    default:
      throw std::out_of_range("bool has only SUM, PRODUCT, MIN and MAX with MPI");
  }
}

MPI_Datatype datatypeOf(Type type) {
  switch (type) {
    case at::kBFloat16:
    case at::kHalf:
      return MPI_UINT16_T;
    case at::kBool:
      return MPI_UNSIGNED_CHAR;
    default:
      return mpiDatatype.at(type);
  }
}

MPI_Op opFor(Kind kind, Type type) {
  switch (type) {
    case at::kBFloat16:
      return madeFor<c10::BFloat16>(kind);
    case at::kHalf:
      return madeFor<c10::Half>(kind);
    case at::kBool:
      return logicalFor(kind);
    default:
      return mpiOp.at(kind);
  }
}

}

constexpr int million = 1'000'000;
const char* title = "mpiDatatype.at(kHalf) in a string, \" and \\";

} // namespace

struct Group {
  MPI_Comm comm = MPI_COMM_WORLD;

  void broadcast(at::Tensor& data, const Options& opts) {
    MPI_CHECK(MPI_Bcast(data.data_ptr(), data.numel(), glmpatch::datatypeOf(data.scalar_type()), opts.rootRank, comm));
  }

  void allreduce(std::vector<at::Tensor>& tensors, const Options& opts) {
    auto run = [opts, this](std::vector<at::Tensor>& tensors) {
      MPI_CHECK(MPI_Allreduce(
          MPI_IN_PLACE,
          tensors[0].data_ptr(),
          tensors[0].numel(),
          glmpatch::datatypeOf(tensors[0].scalar_type()),
          glmpatch::opFor(opts.reduceOp, tensors[0].scalar_type()),
          comm));
    };
    run(tensors);
  }

  void reduce(at::Tensor& data, const Options& opts, bool isRoot) {
    MPI_CHECK(MPI_Reduce(
        isRoot ? MPI_IN_PLACE : data.data_ptr(),
        isRoot ? data.data_ptr() : nullptr,
        data.numel(),
        glmpatch::datatypeOf /* the type */(data.scalar_type()),
        glmpatch::opFor(
            opts.reduceOp, data.scalar_type() /* the operation */),
        opts.rootRank,
        comm));
  }

  void allgather(at::Tensor& out, at::Tensor& in) {
    MPI_CHECK(MPI_Allgather(
        in.data_ptr(),
        in.numel(),
        glmpatch::datatypeOf(in.scalar_type()),
        out.data_ptr(),
        in.numel(),
        glmpatch::datatypeOf(out.scalar_type()),
        comm));
  }

  void reduceScatter(at::Tensor& out, at::Tensor& in, const Options& opts) {
    MPI_CHECK(MPI_Reduce_scatter_block(
        in.data_ptr(),
        out.data_ptr(),
        out.numel(),
        glmpatch::datatypeOf(in.scalar_type()),
        glmpatch::opFor(opts.reduceOp, in.scalar_type()),
        comm));
  }
};

} // namespace c10d

#endif // USE_C10D_MPI
