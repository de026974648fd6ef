namespace c10d {
namespace {
std::map<ReduceOp, MPI_Op> mpiOp = {{ReduceOp::SUM, MPI_SUM}};
std::map<at::ScalarType, MPI_Datatype> mpiDatatype = {
    {at::kFloat, MPI_FLOAT},
    {at::kHalf, MPI_FLOAT16},
    {at::kBFloat16, MPI_BFLOAT16},
#if MPI_VERSION >= 4
    {at::kLong, MPI_INT64_T},
#endif
    {at::ScalarType::Bool, MPI_C_BOOL},
};
} // namespace

void reduce(at::Tensor& data, Op op) {
  MPI_CHECK(MPI_Allreduce(data.data_ptr(), mpiDatatype.at(data.scalar_type()), mpiOp.at(op), comm));
}
} // namespace c10d
