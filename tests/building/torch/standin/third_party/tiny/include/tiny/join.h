#pragma once

#include <sstream>
#include <string>

namespace tiny {

// All of them as one text.
template <class... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

} // namespace tiny
