#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <cstdint>

namespace at {

using namespace c10;

// Numbers of others, one behind the other.
class Tensor {
 public:
  Tensor(void* data, int64_t count, ScalarType type) : data_(data), count_(count), type_(type) {}

  void* data_ptr() const {
    return data_;
  }

  int64_t numel() const {
    return count_;
  }

  ScalarType scalar_type() const {
    return type_;
  }

 private:
  void* data_;
  int64_t count_;
  ScalarType type_;
};

} // namespace at
