#pragma once

#include <tiny/join.h>

#include <stdexcept>

#define TORCH_CHECK(condition, ...)                        \
  do {                                                     \
    if (!(condition)) {                                    \
      throw std::runtime_error(tiny::join(__VA_ARGS__));   \
    }                                                      \
  } while (0)
