#pragma once

#include <cstdint>

namespace c10d {

struct ReduceOp {
  // The numbers are PyTorch's, for Python hands them over.
  enum RedOpType : uint8_t {
    SUM = 0,
    AVG = 1,
    PRODUCT = 2,
    MIN = 3,
    MAX = 4,
    BAND = 5,
    BOR = 6,
    BXOR = 7,
  };

  ReduceOp(RedOpType kind) : op_(kind) {}

  operator RedOpType() const {
    return op_;
  }

  RedOpType op_;
};

struct AllreduceOptions {
  ReduceOp reduceOp = ReduceOp::SUM;
};

struct BroadcastOptions {
  int64_t rootRank = 0;
};

} // namespace c10d
