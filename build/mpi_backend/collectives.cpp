#include "collectives.hpp"

#include "engine.hpp"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cstring>

namespace glmpatch {

namespace {

// Larger messages are slower in every MPI. Measured with an all_reduce of 24 MB, two ranks on one host: Intel MPI and
// MPICH are fastest at 256 to 512 KB and two to three times slower at 4 MB; Open MPI loses 7 % at 512 KB against 4 MB.
constexpr std::int64_t kChunk = 512 * 1024;
constexpr std::int64_t kSmallestChunk = 64 * 1024; // a rank, where all share one chunk
constexpr std::int64_t kPiece = 4 * 1024 * 1024;   // of what exchange() sends

// Calls f(offset, length) for each chunk of `total` bytes. `step` is a multiple of the size of any dtype.
template <typename F>
void in_chunks(std::int64_t total, std::int64_t step, F&& f) {
  for (std::int64_t offset = 0; offset < total; offset += step) {
    f(offset, static_cast<int>(std::min(step, total - offset)));
  }
}

std::int64_t shared_chunk(std::size_t ranks) {
  const auto share = kChunk / static_cast<std::int64_t>(ranks);
  return std::max(share - share % 64, kSmallestChunk);
}

char* scratch(std::int64_t bytes) {
  static auto* buffer = new std::vector<char>; // never destroyed: the worker may outlive static objects
  if (static_cast<std::int64_t>(buffer->size()) < bytes) {
    buffer->resize(bytes);
  }
  return buffer->data();
}

} // namespace

Reducer::Reducer(Reduction op, c10::ScalarType dtype, int size, double factor)
    : op_(op), dtype_(dtype), size_(size), factor_(factor) {
  kernel(dtype_, op_);
}

MPI_Datatype Reducer::type() const {
  return element_type(dtype_);
}

MPI_Op Reducer::operation() const {
  return reduction(dtype_, op_);
}

int Reducer::count(int bytes) const {
  return bytes / static_cast<int>(c10::elementSize(dtype_));
}

// The sum of some fp16 numbers may be too large where their mean is not.
bool Reducer::averages_first() const {
  return op_ == Reduction::Avg && dtype_ == c10::ScalarType::Half;
}

bool Reducer::changes_inputs() const {
  return op_ == Reduction::PremulSum || averages_first();
}

void Reducer::before(char* data, int bytes) const {
  if (op_ == Reduction::PremulSum) {
    multiply(data, count(bytes), dtype_, factor_);
  } else if (averages_first()) {
    divide(data, count(bytes), dtype_, size_);
  }
}

void Reducer::after(char* data, int bytes) const {
  if (op_ == Reduction::Avg && !averages_first()) {
    divide(data, count(bytes), dtype_, size_);
  }
}

void broadcast(MPI_Comm comm, Block block, int root) {
  in_chunks(block.bytes, kChunk, [&](std::int64_t offset, int length) {
    check(MPI_Bcast(block.data + offset, length, MPI_BYTE, root, comm), "MPI_Bcast");
  });
}

void all_reduce(MPI_Comm comm, Block block, const Reducer& reducer) {
  const auto type = reducer.type();
  const auto operation = reducer.operation();
  in_chunks(block.bytes, kChunk, [&](std::int64_t offset, int length) {
    char* data = block.data + offset;
    reducer.before(data, length);
    check(MPI_Allreduce(MPI_IN_PLACE, data, reducer.count(length), type, operation, comm), "MPI_Allreduce");
    reducer.after(data, length);
  });
}

void reduce(MPI_Comm comm, Block block, const Reducer& reducer, int root, bool is_root) {
  const auto type = reducer.type();
  const auto operation = reducer.operation();
  in_chunks(block.bytes, kChunk, [&](std::int64_t offset, int length) {
    char* data = block.data + offset;
    if (reducer.changes_inputs() && !is_root) { // what the others gave stays as it is
      data = static_cast<char*>(std::memcpy(scratch(length), data, length));
    }
    reducer.before(data, length);
    const void* from = is_root ? MPI_IN_PLACE : data;
    check(MPI_Reduce(from, data, reducer.count(length), type, operation, root, comm), "MPI_Reduce");
    if (is_root) {
      reducer.after(data, length);
    }
  });
}

void reduce_scatter(MPI_Comm comm, const std::vector<Block>& inputs, Block output, const Reducer& reducer) {
  const auto type = reducer.type();
  const auto operation = reducer.operation();
  in_chunks(output.bytes, shared_chunk(inputs.size()), [&](std::int64_t offset, int length) {
    char* all = scratch(std::int64_t{length} * static_cast<std::int64_t>(inputs.size()));
    char* next = all;
    for (const auto& input : inputs) {
      std::memcpy(next, input.data + offset, length);
      reducer.before(next, length);
      next += length;
    }
    char* result = output.data + offset;
    check(MPI_Reduce_scatter_block(all, result, reducer.count(length), type, operation, comm),
          "MPI_Reduce_scatter_block");
    reducer.after(result, length);
  });
}

void all_gather(MPI_Comm comm, Block input, const std::vector<Block>& outputs) {
  in_chunks(input.bytes, shared_chunk(outputs.size()), [&](std::int64_t offset, int length) {
    // A type with gaps would spare the copy. Intel MPI 2021.18 reads beyond the end of the output with one, and the
    // copy, from the cache, takes 5 % of the time.
    char* next = scratch(std::int64_t{length} * static_cast<std::int64_t>(outputs.size()));
    check(MPI_Allgather(input.data + offset, length, MPI_BYTE, next, length, MPI_BYTE, comm), "MPI_Allgather");
    for (const auto& output : outputs) {
      std::memcpy(output.data + offset, next, length);
      next += length;
    }
  });
}

void expect_fitting(MPI_Comm comm, const std::vector<Block>& sends, const std::vector<Block>& receives) {
  struct Misfit {
    std::int64_t peer = -1;
    std::int64_t sent = 0;
    std::int64_t expected = 0;
  };
  const auto size = sends.size();
  std::vector<std::int64_t> mine(size), theirs(size);
  for (std::size_t peer = 0; peer < size; ++peer) {
    mine[peer] = sends[peer].bytes;
  }
  check(MPI_Alltoall(mine.data(), 1, MPI_INT64_T, theirs.data(), 1, MPI_INT64_T, comm), "MPI_Alltoall");
  Misfit found;
  for (std::size_t peer = 0; peer < size; ++peer) {
    if (theirs[peer] != receives[peer].bytes) {
      found = {static_cast<std::int64_t>(peer), theirs[peer], receives[peer].bytes};
    }
  }
  std::vector<Misfit> all(size);
  check(MPI_Allgather(&found, sizeof(Misfit), MPI_BYTE, all.data(), sizeof(Misfit), MPI_BYTE, comm), "MPI_Allgather");
  for (std::size_t rank = 0; rank < size; ++rank) {
    const auto& misfit = all[rank];
    if (misfit.peer >= 0) {
      throw Misuse(c10::str("rank ", misfit.peer, " sends ", misfit.sent, " bytes to rank ", rank, ", which expects ",
                            misfit.expected));
    }
  }
}

void exchange(MPI_Comm comm, int rank, const std::vector<Block>& sends, const std::vector<Block>& receives) {
  if (!sends.empty() && !receives.empty() && receives[rank].bytes > 0) {
    std::memmove(receives[rank].data, sends[rank].data, receives[rank].bytes);
  }
  std::vector<MPI_Request> requests;
  const auto post = [&](const std::vector<Block>& blocks, std::int64_t offset, auto start, const char* call) {
    for (int peer = 0; peer < static_cast<int>(blocks.size()); ++peer) {
      const auto& block = blocks[peer];
      if (peer != rank && offset < block.bytes) {
        const auto length = static_cast<int>(std::min(kPiece, block.bytes - offset));
        check(start(block.data + offset, length, MPI_BYTE, peer, kCollectiveTag, comm, &requests.emplace_back()), call);
      }
    }
  };
  for (std::int64_t offset = 0;; offset += kPiece) {
    requests.clear();
    post(receives, offset, MPI_Irecv, "MPI_Irecv");
    post(sends, offset, MPI_Isend, "MPI_Isend");
    if (requests.empty()) {
      return;
    }
    check(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
  }
}

} // namespace glmpatch
