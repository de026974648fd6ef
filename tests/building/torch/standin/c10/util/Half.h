#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace c10 {

// IEEE's binary16: a sign, 5 bits of exponent, 10 of fraction.
struct Half {
  uint16_t x = 0;

  Half() = default;

  Half(float value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const float size = std::fabs(value);
    if (size != size) {
      x = 0x7e00;
    } else if (size >= 65536) {
      x = sign | 0x7c00;
    } else {
      int exponent = 0;
      std::frexp(size, &exponent);
      // The distance of neighbours there is 2 to the power of this.
      const int step = size == 0 ? -24 : std::max(exponent - 11, -24);
      x = sign | (((step + 24) << 10) + static_cast<int>(std::nearbyint(std::ldexp(size, -step))));
    }
  }

  operator float() const {
    const int exponent = (x >> 10) & 31;
    const int fraction = x & 1023;
    float size = 0;
    if (exponent == 31) {
      size = fraction ? NAN : INFINITY;
    } else {
      size = std::ldexp(static_cast<float>(exponent ? fraction + 1024 : fraction), std::max(exponent, 1) - 25);
    }
    return x & 0x8000 ? -size : size;
  }
};

} // namespace c10
