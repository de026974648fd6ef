#include "reduce.hpp"

#include "engine.hpp"

#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>
#include <c10/util/complex.h>

#include <atomic>
#include <cstring>
#include <iterator>
#include <map>
#include <type_traits>

// MPI's own reductions are not used where they would do: measured with three MPIs, they are not faster than these.
// Nor is the bfloat16 conversion of newer processors: it flushes denormals, so the bits would depend on the processor.
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
// No fma: one rounding where the other loops have two. With 512 bits only bfloat16 is computed, which has none to fuse.
#define GLMPATCH_AVX2 __attribute__((target("avx2,f16c")))
#define GLMPATCH_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))
#endif
#define GLMPATCH_INLINE __attribute__((always_inline))

namespace glmpatch {
namespace {

using c10::BFloat16;
using c10::Half;
using R = Reduction;
using Complex64 = c10::complex<float>;
using Complex128 = c10::complex<double>;
struct Truth {
  std::uint8_t byte; // of a bool tensor; read as a bool it would be undefined behaviour unless it is 0 or 1
};

template <class T>
constexpr bool reduces(Reduction op) {
  constexpr bool whole = std::is_integral_v<T> || std::is_same_v<T, Truth>;
  constexpr bool complex = std::is_same_v<T, Complex64> || std::is_same_v<T, Complex128>;
  const bool scales = op == R::Avg || op == R::PremulSum;
  const bool orders = op == R::Min || op == R::Max;
  const bool bits = op == R::BAnd || op == R::BOr || op == R::BXor;
  return op == R::Sum || op == R::Product || (scales && !whole) || (orders && !complex) || (bits && whole);
}

template <class To, class From>
GLMPATCH_INLINE inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// widen: a stored number as it is computed with. narrow: back, rounded to nearest even. Every NaN of 16 bits becomes
// one and the same: which of two NaNs an addition keeps is left to the compiler.
template <class T>
GLMPATCH_INLINE inline T widen(T x) {
  return x;
}

GLMPATCH_INLINE inline std::uint8_t widen(Truth x) {
  return x.byte != 0;
}

GLMPATCH_INLINE inline float widen(Half x) {
  return x;
}

template <class T, class W>
GLMPATCH_INLINE inline T narrow(W x) {
  if constexpr (std::is_same_v<T, Truth>) {
    return {x != 0};
  } else if constexpr (std::is_same_v<T, Half>) {
    return x != x ? Half(0x7E00, Half::from_bits()) : Half(x);
  } else {
    return x;
  }
}

// a = a op b, without returning a vector, which only a function compiled for vectors may.
template <Reduction op>
struct Combine {
  template <class W>
  GLMPATCH_INLINE void operator()(W& a, const W& b) const {
    if constexpr (op == R::Min) {
      a = ((b < a) | (b != b)) ? b : a; // a NaN wins, as in torch.minimum; `|` serves vectors too
    } else if constexpr (op == R::Max) {
      a = ((b > a) | (b != b)) ? b : a;
    } else if constexpr (op == R::BAnd) {
      a &= b;
    } else if constexpr (op == R::BOr) {
      a |= b;
    } else if constexpr (op == R::BXor) {
      a ^= b;
    } else if constexpr (std::is_integral_v<W>) {
      using U = std::make_unsigned_t<decltype(a + b)>; // it wraps, where a signed overflow is undefined
      a = static_cast<W>(op == R::Sum ? U(a) + U(b) : U(a) * U(b));
    } else {
      a = op == R::Sum ? a + b : a * b;
    }
  }
};

// The loops: f(out[i], in[i]...), with one array `in` or none, compiled for the instructions of their caller.
template <class T, class F, class... In>
GLMPATCH_INLINE inline void loop(std::int64_t n, F f, T* __restrict out, In... in) {
  for (std::int64_t i = 0; i < n; ++i) {
    auto x = widen(out[i]);
    f(x, widen(in[i])...);
    out[i] = narrow<T>(x);
  }
}

GLMPATCH_INLINE inline std::uint32_t rounded_to_upper(float x) {
  const auto bits = bit_cast<std::uint32_t>(x);
  return x != x ? 0x7FC00000u : bits + 0x7FFFu + (bits >> 16 & 1u);
}

// Two bfloat16 at a time are the halves of a word: vectors need not be taken apart and packed.
template <class F, class... In>
GLMPATCH_INLINE inline void loop(std::int64_t n, F f, BFloat16* __restrict out, In... in) {
  const auto step = [=](std::int64_t i, std::size_t bytes) GLMPATCH_INLINE {
    const auto word = [=](const BFloat16* x) GLMPATCH_INLINE {
      std::uint32_t both = 0;
      std::memcpy(&both, x + i, bytes);
      return both;
    };
    auto low = bit_cast<float>(word(out) << 16), high = bit_cast<float>(word(out) & 0xFFFF0000u);
    f(low, bit_cast<float>(word(in) << 16)...);
    f(high, bit_cast<float>(word(in) & 0xFFFF0000u)...);
    const std::uint32_t both = rounded_to_upper(low) >> 16 | (rounded_to_upper(high) & 0xFFFF0000u);
    std::memcpy(out + i, &both, bytes);
  };
  for (std::int64_t i = 0; i + 1 < n; i += 2) {
    step(i, 2 * sizeof(BFloat16));
  }
  if (n % 2 != 0) {
    step(n - 1, sizeof(BFloat16));
  }
}

#if defined(__x86_64__)
template <class T, class F, class... In>
GLMPATCH_AVX2 void loop_avx2(std::int64_t n, F f, T* out, In... in) {
  loop(n, f, out, in...);
}

GLMPATCH_AVX2 GLMPATCH_INLINE inline __m256 load(const Half* x) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}

template <class F, class... In>
GLMPATCH_AVX2 void loop_avx2(std::int64_t n, F f, Half* out, In... in) {
  const __m256 one_nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000));
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256 x = load(out + i);
    f(x, load(in + i)...);
    const __m256 clean = _mm256_blendv_ps(x, one_nan, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m128i halves = _mm256_cvtps_ph(clean, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), halves);
  }
  loop(n - i, f, out + i, in + i...);
}

template <class F, class... In>
GLMPATCH_AVX512 void loop_avx512(std::int64_t n, F f, BFloat16* out, In... in) {
  loop(n, f, out, in...);
}
#endif

enum Isa : int { Scalar, Avx2, Avx512 };
constexpr const char* kIsas[] = {"scalar", "avx2", "avx512"};

Isa best_isa() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  if (f16c && __builtin_cpu_supports("avx2")) {
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") ? Avx512 : Avx2;
  }
#endif
  return Scalar;
}

std::atomic<Isa> current_isa{best_isa()};

template <class T, class F, class... In>
void run(std::int64_t n, F f, T* out, In... in) {
#if defined(__x86_64__)
  const Isa isa = current_isa.load(std::memory_order_relaxed);
  if constexpr (std::is_same_v<T, BFloat16>) { // elsewhere 512 bits gained nothing over 256
    if (isa == Avx512) {
      return loop_avx512(n, f, out, in...);
    }
  }
  if (isa != Scalar) {
    return loop_avx2(n, f, out, in...);
  }
#endif
  loop(n, f, out, in...);
}

template <class T, Reduction op>
void reduce(void* in, void* out, int* n, MPI_Datatype* /*unused*/) {
  if constexpr (reduces<T>(op)) {
    run(*n, Combine<op>(), static_cast<T*>(out), static_cast<const T*>(in));
  }
}

// Calls f with a null pointer to the type that holds `dtype`. False for a dtype without arithmetic.
template <class F>
bool with_type(c10::ScalarType dtype, F f) {
  switch (dtype) {
#define GLMPATCH_CASE(name, type)   \
  case c10::ScalarType::name:       \
    f(static_cast<type*>(nullptr)); \
    return true;
    GLMPATCH_CASE(Bool, Truth)
    GLMPATCH_CASE(Byte, std::uint8_t)
    GLMPATCH_CASE(Char, std::int8_t)
    GLMPATCH_CASE(Short, std::int16_t)
    GLMPATCH_CASE(Int, std::int32_t)
    GLMPATCH_CASE(Long, std::int64_t)
    GLMPATCH_CASE(UInt16, std::uint16_t)
    GLMPATCH_CASE(UInt32, std::uint32_t)
    GLMPATCH_CASE(UInt64, std::uint64_t)
    GLMPATCH_CASE(Half, Half)
    GLMPATCH_CASE(BFloat16, BFloat16)
    GLMPATCH_CASE(Float, float)
    GLMPATCH_CASE(Double, double)
    GLMPATCH_CASE(ComplexFloat, Complex64)
    GLMPATCH_CASE(ComplexDouble, Complex128)
#undef GLMPATCH_CASE
    default:
      return false;
  }
}

// f(x, by) for every x of data, with `by` in the precision that x is computed in.
template <class F>
void scale(void* data, std::int64_t n, c10::ScalarType dtype, double by, F f) {
  with_type(dtype, [=](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if constexpr (reduces<T>(R::Avg)) {
      using Real = std::conditional_t<std::is_same_v<T, double> || std::is_same_v<T, Complex128>, double, float>;
      const auto real = static_cast<Real>(by);
      run(n, [=](auto& x) GLMPATCH_INLINE { f(x, real); }, static_cast<T*>(data));
    }
  });
}

} // namespace

const char* name_of(Reduction op) {
  constexpr const char* kNames[] = {"SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM"};
  const auto index = static_cast<std::size_t>(op);
  return index < std::size(kNames) ? kNames[index] : "UNUSED";
}

MPI_User_function* kernel(c10::ScalarType dtype, Reduction op) {
  MPI_User_function* found = nullptr;
  with_type(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr auto sum = reduce<T, R::Sum>;
    constexpr MPI_User_function* kernels[] = {sum,
                                              sum,
                                              reduce<T, R::Product>,
                                              reduce<T, R::Min>,
                                              reduce<T, R::Max>,
                                              reduce<T, R::BAnd>,
                                              reduce<T, R::BOr>,
                                              reduce<T, R::BXor>,
                                              sum};
    found = reduces<T>(op) ? kernels[static_cast<std::size_t>(op)] : nullptr;
  });
  TORCH_CHECK(found != nullptr, "ReduceOp.", name_of(op), " is not defined for tensors of dtype ",
              c10::toString(dtype));
  return found;
}

MPI_Datatype element_type(c10::ScalarType dtype) {
  static auto& types = *new std::map<std::size_t, MPI_Datatype>; // never destroyed: the worker may outlive it
  const std::size_t size = c10::elementSize(dtype);
  const auto entry = types.try_emplace(size, MPI_DATATYPE_NULL).first;
  if (entry->second == MPI_DATATYPE_NULL) {
    check(MPI_Type_contiguous(static_cast<int>(size), MPI_BYTE, &entry->second), "MPI_Type_contiguous");
    check(MPI_Type_commit(&entry->second), "MPI_Type_commit");
  }
  return entry->second;
}

MPI_Op reduction(c10::ScalarType dtype, Reduction op) {
  static auto& ops = *new std::map<MPI_User_function*, MPI_Op>; // as above
  MPI_User_function* function = kernel(dtype, op);
  const auto entry = ops.try_emplace(function, MPI_OP_NULL).first;
  if (entry->second == MPI_OP_NULL) {
    check(MPI_Op_create(function, 1, &entry->second), "MPI_Op_create");
  }
  return entry->second;
}

void multiply(void* data, std::int64_t n, c10::ScalarType dtype, double factor) {
  scale(data, n, dtype, factor, [](auto& x, auto by) GLMPATCH_INLINE { x = x * by; });
}

void divide(void* data, std::int64_t n, c10::ScalarType dtype, std::int64_t divisor) {
  scale(data, n, dtype, static_cast<double>(divisor), [](auto& x, auto by) GLMPATCH_INLINE { x = x / by; });
}

std::string isa() {
  return kIsas[current_isa.load()];
}

void set_isa(const std::string& name) {
  for (int level = Scalar; level <= best_isa(); ++level) {
    if (kIsas[level] == name) {
      return current_isa.store(static_cast<Isa>(level));
    }
  }
  TORCH_CHECK(false, "This processor has no ", name, " to reduce with; the best that it has is ", kIsas[best_isa()]);
}

} // namespace glmpatch
