// As much of torch as the collectives of the case touch: its real dtypes, and a tensor that is a vector of bytes.
#pragma once

#include <c10/core/ScalarType.h>
#include <mpi.h>

#include <cstdint>
#include <map>
#include <vector>

namespace at {

struct Tensor {
  ScalarType type;
  std::vector<std::uint8_t> bytes;

  ScalarType scalar_type() const { return type; }
  int numel() const { return static_cast<int>(bytes.size() / elementSize(type)); }
  void* data_ptr() { return bytes.data(); }
};

} // namespace at

namespace c10d {

// Like torch's: a class that becomes the number of its operation by itself.
struct ReduceOp {
  enum RedOpType : std::uint8_t { SUM, AVG, PRODUCT, MIN, MAX, BAND };
  ReduceOp(RedOpType op) : op(op) {}
  operator RedOpType() const { return op; }
  RedOpType op;
};

struct Options {
  ReduceOp reduceOp = ReduceOp::SUM;
  int rootRank = 0;
};

} // namespace c10d
