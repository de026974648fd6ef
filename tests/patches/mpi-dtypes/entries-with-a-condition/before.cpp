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
static std::map<ReduceOp::RedOpType, MPI_Op> mpiOp = {{ReduceOp::SUM, MPI_SUM}}; /* the
last */ int calls = 0;
} // namespace

void Group::abort(){TORCH_CHECK(false, "no semicolon")}

int Group::send(std::unique_ptr<Entry>& entry) {
#define CHECKED(call) check(call, #call)
	return CHECKED(MPI_Allreduce(entry->data(), mpiOp.at(opts.reduceOp), mpiDatatype.at(entry->scalar_type())));
}
} // namespace c10d