// Messages from rank to rank, as the driver of the engine polls them.
#pragma once

#include "collectives.hpp"
#include "engine.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace glmpatch {

class Sending {
 public:
  Sending(std::shared_ptr<Communicator> communicator, Block block, int destination, int tag);

  // Starts at the first call; true once MPI needs the block no longer. Throws c10::DistBackendError.
  bool poll();

 private:
  std::shared_ptr<Communicator> communicator_;
  Block block_;
  int destination_;
  int tag_;
  bool started_ = false;
  MPI_Request request_ = MPI_REQUEST_NULL;
};

// Asks how long a message is before it takes it. To let MPI find that it is too long is no way: Open MPI 5.0.11 then
// writes beyond the end of the block, where the ranks read each other's memory.
class Receiving {
 public:
  // `source` may be MPI_ANY_SOURCE.
  Receiving(std::shared_ptr<Communicator> communicator, Block block, int source, int tag);

  // True once the message is here. Throws c10::DistBackendError, and Misuse if the message has another length than the
  // block.
  bool poll();

  // Whether the message has begun to come in.
  bool found() const { return found_; }
  // The rank it comes from, once it is found.
  int source() const { return source_; }

 private:
  bool is_next(int source) const;
  bool find();

  std::shared_ptr<Communicator> communicator_;
  Block block_;
  int source_;
  int tag_;
  std::uint64_t ticket_ = 0; // its place in the line of those that wait
  bool found_ = false;
  std::int64_t length_ = 0; // of what was found, in bytes
  MPI_Request request_ = MPI_REQUEST_NULL;
  std::vector<char> unwanted_; // where a message of another length goes
};

} // namespace glmpatch
