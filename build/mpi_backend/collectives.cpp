#include "collectives.hpp"

#include "engine.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <climits>
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

// `length` bytes, of which the next ones follow at a distance of `stride`.
class Strided {
 public:
  Strided(int length, std::int64_t stride) {
    MPI_Datatype block = MPI_DATATYPE_NULL;
    check(MPI_Type_contiguous(length, MPI_BYTE, &block), "MPI_Type_contiguous");
    check(MPI_Type_create_resized(block, 0, stride, &type), "MPI_Type_create_resized");
    check(MPI_Type_commit(&type), "MPI_Type_commit");
    MPI_Type_free(&block);
  }
  ~Strided() { MPI_Type_free(&type); }
  Strided(const Strided&) = delete;
  Strided& operator=(const Strided&) = delete;

  MPI_Datatype type = MPI_DATATYPE_NULL;
};

bool in_a_row(const std::vector<Block>& blocks) {
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    if (blocks[i].data != blocks[i - 1].data + blocks[i - 1].bytes) {
      return false;
    }
  }
  return true;
}

// One round of exchange(): the piece at `offset` of every part that has one.
class Round {
 public:
  Round(MPI_Comm comm, int rank, std::int64_t offset) : comm_(comm), rank_(rank), offset_(offset) {}

  // The last piece of a part is never full, and may be empty: so whoever expects more than it is sent learns it and
  // does not wait.
  void post(const std::vector<Part>& parts, bool sending) {
    for (const auto& [peer, block] : parts) {
      if (peer == rank_ || offset_ > block.bytes) {
        continue;
      }
      const auto length = static_cast<int>(std::min(kPiece, block.bytes - offset_));
      char* data = block.data + offset_;
      requests_.push_back(MPI_REQUEST_NULL);
      expected_.push_back(sending ? -1 : length);
      auto* request = &requests_.back();
      check(sending ? MPI_Isend(data, length, MPI_BYTE, peer, kCollectiveTag, comm_, request)
                    : MPI_Irecv(data, length, MPI_BYTE, peer, kCollectiveTag, comm_, request),
            sending ? "MPI_Isend" : "MPI_Irecv");
    }
  }

  // Returns whether there was anything to do.
  bool complete() {
    std::vector<MPI_Status> statuses(requests_.size());
    const int code = MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), statuses.data());
    for (std::size_t i = 0; i < statuses.size(); ++i) {
      if (code == MPI_ERR_IN_STATUS) {
        check(statuses[i].MPI_ERROR, "MPI_Waitall");
      } else if (code == MPI_SUCCESS && expected_[i] >= 0) {
        int length = 0;
        MPI_Get_count(&statuses[i], MPI_BYTE, &length);
        TORCH_CHECK_WITH(DistBackendError, length == expected_[i], "rank ", statuses[i].MPI_SOURCE, " sent ", length,
                         " bytes where ", expected_[i], " were expected");
      }
    }
    check(code, "MPI_Waitall");
    return !requests_.empty();
  }

 private:
  MPI_Comm comm_;
  int rank_;
  std::int64_t offset_;
  std::vector<MPI_Request> requests_;
  std::vector<int> expected_;
};

void copy_own(int rank, const std::vector<Part>& sends, const std::vector<Part>& receives) {
  for (const auto& from : sends) {
    for (const auto& to : receives) {
      if (from.peer == rank && to.peer == rank) {
        TORCH_CHECK(from.block.bytes == to.block.bytes, "rank ", rank, " sends itself ", from.block.bytes,
                    " bytes and expects ", to.block.bytes);
        if (from.block.bytes > 0) {
          std::memmove(to.block.data, from.block.data, from.block.bytes);
        }
      }
    }
  }
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

bool Reducer::scales() const {
  return op_ == Reduction::PremulSum;
}

void Reducer::before(char* data, int bytes) const {
  if (scales()) {
    multiply(data, count(bytes), dtype_, factor_);
  }
}

void Reducer::after(char* data, int bytes) const {
  if (op_ == Reduction::Avg) {
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
    if (reducer.scales() && !is_root) { // what the others gave stays as it is
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

void all_gather(MPI_Comm comm, int rank, Block input, const std::vector<Block>& outputs) {
  const bool direct = in_a_row(outputs);
  const bool in_place = direct && input.data == outputs[rank].data;
  in_chunks(input.bytes, shared_chunk(outputs.size()), [&](std::int64_t offset, int length) {
    const char* mine = input.data + offset;
    if (direct) {
      const Strided strided(length, input.bytes);
      const void* from = in_place ? MPI_IN_PLACE : mine;
      check(MPI_Allgather(from, length, MPI_BYTE, outputs[0].data + offset, 1, strided.type, comm), "MPI_Allgather");
      return;
    }
    char* next = scratch(std::int64_t{length} * static_cast<std::int64_t>(outputs.size()));
    check(MPI_Allgather(mine, length, MPI_BYTE, next, length, MPI_BYTE, comm), "MPI_Allgather");
    for (const auto& output : outputs) {
      std::memcpy(output.data + offset, next, length);
      next += length;
    }
  });
}

void exchange(MPI_Comm comm, int rank, const std::vector<Part>& sends, const std::vector<Part>& receives) {
  copy_own(rank, sends, receives);
  std::int64_t offset = 0;
  bool more = true;
  while (more) {
    Round round(comm, rank, offset);
    round.post(receives, false);
    round.post(sends, true);
    more = round.complete();
    offset += kPiece;
  }
}

MessageType::MessageType(std::int64_t bytes) {
  if (bytes <= INT_MAX) {
    count = static_cast<int>(bytes);
    return;
  }
  constexpr int kBlock = 1 << 20;
  MPI_Datatype block = MPI_DATATYPE_NULL;
  check(MPI_Type_contiguous(kBlock, MPI_BYTE, &block), "MPI_Type_contiguous");
  int lengths[] = {static_cast<int>(bytes / kBlock), static_cast<int>(bytes % kBlock)};
  MPI_Aint offsets[] = {0, static_cast<MPI_Aint>(bytes / kBlock * kBlock)};
  MPI_Datatype types[] = {block, MPI_BYTE};
  check(MPI_Type_create_struct(2, lengths, offsets, types, &type), "MPI_Type_create_struct");
  check(MPI_Type_commit(&type), "MPI_Type_commit");
  MPI_Type_free(&block);
  count = 1;
}

MessageType::~MessageType() {
  if (type != MPI_BYTE) {
    MPI_Type_free(&type); // MPI keeps it for the messages under way
  }
}

} // namespace glmpatch
