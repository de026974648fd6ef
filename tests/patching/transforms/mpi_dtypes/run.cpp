// Runs the collectives of the case on every rank, and holds each result against the same computed without MPI.
#include "collectives.cpp"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>

namespace {

using c10d::Options;
using c10d::ReduceOp;

int rank = 0, ranks = 1, wrong = 0;
// Large enough for an MPI to cut a reduction into pieces.
constexpr int count = 50'000;
constexpr ReduceOp::RedOpType ops[] = {ReduceOp::SUM, ReduceOp::PRODUCT, ReduceOp::MIN, ReduceOp::MAX};

template <class T>
T item(int of, int index) {
  if constexpr (std::is_same_v<T, bool>) {
    return (index >> of & 1) != 0;
  } else {
    // Sums and products of them need to be rounded.
    const float value = static_cast<float>(index % 253 - 126) * (1.0f + 0.37f * static_cast<float>(of));
    if (std::is_same_v<T, float> || index % 11 != 5 + of) {
      return value;
    }
    return std::nanf("");
  }
}

template <class T>
T reduced(ReduceOp op, T x, T y) {
  const bool least = op == ReduceOp::MIN;
  if constexpr (std::is_same_v<T, bool>) {
    return least || op == ReduceOp::PRODUCT ? x && y : x || y;
  } else {
    const float a = x, b = y;
    if (op == ReduceOp::SUM || op == ReduceOp::PRODUCT) {
      return op == ReduceOp::SUM ? a + b : a * b;
    }
    if (std::isnan(a) || std::isnan(b)) {
      return std::nanf("");
    }
    return least ? std::fmin(a, b) : std::fmax(a, b);
  }
}

template <class T>
at::Tensor make(int size, const std::function<T(int)>& value) {
  at::Tensor made{c10::CppTypeToScalarType<T>::value, std::vector<std::uint8_t>(size * sizeof(T))};
  for (int i = 0; i < size; ++i) {
    const T x = value(i);
    std::memcpy(made.bytes.data() + i * sizeof(T), &x, sizeof(T));
  }
  return made;
}

template <class T>
void expect(const char* what, int op, const at::Tensor& found, const std::function<T(int)>& value) {
  for (int i = 0; i < found.numel(); ++i) {
    T x;
    std::memcpy(&x, found.bytes.data() + i * sizeof(T), sizeof(T));
    const float a = x, b = value(i);
    if (!(a == b || (std::isnan(a) && std::isnan(b)))) {
      std::printf("%s of %s, operation %d: item %d is %g, not %g\n", what, c10::toString(found.type), op, i, a, b);
      ++wrong;
      return;
    }
  }
}

template <class T>
void expectAll() {
  c10d::Group group;
  const auto mine = [](int i) { return item<T>(rank, i); };
  for (const auto op : ops) {
    const auto both = [op](int i) { return reduced<T>(op, item<T>(0, i), item<T>(1, i)); };
    const Options opts{op, 1};
    std::vector<at::Tensor> all{make<T>(count, mine)};
    group.allreduce(all, opts);
    expect<T>("allreduce", op, all[0], both);
    at::Tensor one = make<T>(count, mine);
    group.reduce(one, opts, rank == opts.rootRank);
    if (rank == opts.rootRank) {
      expect<T>("reduce", op, one, both);
    }
    at::Tensor whole = make<T>(count, mine), part = make<T>(count / 2, mine);
    group.reduceScatter(part, whole, opts);
    expect<T>("reduce_scatter", op, part, [&](int i) { return both(rank * count / 2 + i); });
  }
  at::Tensor data = make<T>(count, mine);
  group.broadcast(data, {ReduceOp::SUM, 1});
  expect<T>("broadcast", 0, data, [](int i) { return item<T>(1, i); });
  at::Tensor in = make<T>(count, mine), out = make<T>(2 * count, mine);
  group.allgather(out, in);
  expect<T>("allgather", 0, out, [](int i) { return item<T>(i / count, i % count); });
}

void expectRaised(c10::ScalarType type, ReduceOp op) {
  std::vector<at::Tensor> tensors{{type, std::vector<std::uint8_t>(8)}};
  try {
    c10d::Group().allreduce(tensors, {op, 0});
    std::printf("operation %d of %s did not raise\n", static_cast<int>(op), c10::toString(type));
    ++wrong;
  } catch (const std::out_of_range&) {
  }
}

} // namespace

int main() {
  MPI_Init(nullptr, nullptr);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  try {
    expectAll<float>();
    expectAll<c10::BFloat16>();
    expectAll<c10::Half>();
    expectAll<bool>();
    for (const auto type : {c10::kFloat, c10::kBFloat16, c10::kHalf, c10::kBool}) {
      expectRaised(type, ReduceOp::AVG);
      expectRaised(type, ReduceOp::BAND);
    }
    expectRaised(c10::kComplexFloat, ReduceOp::SUM);
  } catch (const std::exception& error) {
    std::printf("raised: %s\n", error.what());
    ++wrong;
  }
  std::printf("rank %d of %d: %s\n", rank, ranks, wrong == 0 ? "all right" : "wrong");
  MPI_Finalize();
  return wrong == 0 ? 0 : 1;
}
