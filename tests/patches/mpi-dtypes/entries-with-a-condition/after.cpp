namespace c10d {
namespace {
const std::map<at::ScalarType, MPI_Datatype> mpiDatatype{
	{at::ScalarType::Float, MPI_FLOAT}, // {at::kBool, MPI_C_BOOL}
#if defined(MPIX_C_FLOAT16)
	{at::kHalf, MPIX_C_FLOAT16},
#endif
#ifdef MPIX_BFLOAT16
	{at::kBFloat16, MPIX_BFLOAT16},
#else // 没有
	/*
#endif
	*/
#endif
	{at::kBool, MPI_C_BOOL},
};
static std::map<ReduceOp::RedOpType, MPI_Op> mpiOp = {{ReduceOp::SUM, MPI_SUM}};

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

} /* the
last */ int calls = 0;
} // namespace

void Group::abort(){TORCH_CHECK(false, "no semicolon")}

int Group::send(std::unique_ptr<Entry>& entry) {
#define CHECKED(call) check(call, #call)
	return CHECKED(MPI_Allreduce(entry->data(), glmpatch::opFor(opts.reduceOp, entry->scalar_type()), glmpatch::datatypeOf(entry->scalar_type())));
}
} // namespace c10d