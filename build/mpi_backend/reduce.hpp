// All reductions, for MPI lacks some or does them otherwise than torch: every dtype that has arithmetic, NaN as
// torch's.
#pragma once

#include <mpi.h>

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

namespace glmpatch {

// The values of c10d::ReduceOp::RedOpType, so that one casts to the other; the header of that takes seconds to compile.
enum class Reduction : std::uint8_t { Sum, Avg, Product, Min, Max, BAnd, BOr, BXor, PremulSum };

// As torch writes it: "PREMUL_SUM".
const char* name_of(Reduction op);

// What MPI calls to reduce `dtype` with `op`. It calls no MPI function itself, so any thread may use it as a check:
// throws c10::Error, which names op and dtype, where the two make no sense together. Avg and PremulSum are sums here:
// the caller divides afterwards, or multiplies before.
MPI_User_function* kernel(c10::ScalarType dtype, Reduction op);

// How an element of `dtype` travels, and the operation that reduces it. Made at the first use, so only a thread that
// may call MPI may ask; kept until MPI is finalised, so nobody frees them. `reduction` throws as `kernel` does.
MPI_Datatype element_type(c10::ScalarType dtype);
MPI_Op reduction(c10::ScalarType dtype, Reduction op);

// data[i] *= factor (for PremulSum) and data[i] /= divisor (for Avg), over n elements. Nothing where `kernel` throws.
void multiply(void* data, std::int64_t n, c10::ScalarType dtype, double factor);
void divide(void* data, std::int64_t n, c10::ScalarType dtype, std::int64_t divisor);

// The instructions in use, "scalar", "avx2" or "avx512": the best that the processor has, or those last set. They all
// give the same bits, so that ranks on different processors don't drift apart; of a NaN of 32 bits or more, they only
// agree that it is one. Throws c10::Error for any others.
std::string isa();
void set_isa(const std::string& name);

} // namespace glmpatch
