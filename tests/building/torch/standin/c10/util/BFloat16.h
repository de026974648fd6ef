#pragma once

#include <cstdint>
#include <cstring>

namespace c10 {

// The upper half of a float.
struct BFloat16 {
  uint16_t x = 0;

  BFloat16() = default;

  BFloat16(float value) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    // To the nearest, of two as near to the even one. A NaN must not round to infinity.
    x = value != value ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  }

  operator float() const {
    const uint32_t bits = uint32_t{x} << 16;
    float value = 0;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
};

} // namespace c10
