#include "messages.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <climits>
#include <vector>

namespace glmpatch {

namespace {

// Counts are ints, so a large block gets a type of its own.
class BlockType {
 public:
  explicit BlockType(std::int64_t bytes) {
    if (bytes <= INT_MAX) {
      count = static_cast<int>(bytes);
      return;
    }
    constexpr int kUnit = 1 << 20;
    MPI_Datatype unit = MPI_DATATYPE_NULL;
    check(MPI_Type_contiguous(kUnit, MPI_BYTE, &unit), "MPI_Type_contiguous");
    int lengths[] = {static_cast<int>(bytes / kUnit), static_cast<int>(bytes % kUnit)};
    MPI_Aint offsets[] = {0, static_cast<MPI_Aint>(bytes / kUnit * kUnit)};
    MPI_Datatype types[] = {unit, MPI_BYTE};
    check(MPI_Type_create_struct(2, lengths, offsets, types, &type), "MPI_Type_create_struct");
    check(MPI_Type_commit(&type), "MPI_Type_commit");
    MPI_Type_free(&unit);
    count = 1;
  }
  ~BlockType() {
    if (type != MPI_BYTE) {
      MPI_Type_free(&type); // MPI keeps it for the messages under way
    }
  }
  BlockType(const BlockType&) = delete;
  BlockType& operator=(const BlockType&) = delete;

  MPI_Datatype type = MPI_BYTE;
  int count = 0;
};

bool is_complete(MPI_Request& request, const char* call) {
  int complete = 0;
  check(MPI_Test(&request, &complete, MPI_STATUS_IGNORE), call);
  return complete != 0;
}

} // namespace

Sending::Sending(std::shared_ptr<Communicator> communicator, Block block, int destination, int tag)
    : communicator_(std::move(communicator)), block_(block), destination_(destination), tag_(tag) {}

bool Sending::poll() {
  if (!started_) {
    started_ = true;
    const BlockType as(block_.bytes);
    check(MPI_Isend(block_.data, as.count, as.type, destination_, tag_, communicator_->handle, &request_), "MPI_Isend");
  }
  return is_complete(request_, "MPI_Isend");
}

Receiving::Receiving(std::shared_ptr<Communicator> communicator, Block block, int source, int tag)
    : communicator_(std::move(communicator)), block_(block), source_(source), tag_(tag) {}

bool Receiving::poll() {
  if (ticket_ == 0) {
    ticket_ = ++communicator_->tickets;
    communicator_->line.push_back({ticket_, source_, tag_});
  }
  return (found_ || find()) && is_complete(request_, "MPI_Imrecv");
}

// Messages go to the receives that want them in the order of the program.
bool Receiving::is_next() const {
  for (const auto& waiting : communicator_->line) {
    if (waiting.ticket == ticket_) {
      return true;
    }
    const bool any = waiting.source == MPI_ANY_SOURCE || source_ == MPI_ANY_SOURCE;
    if (waiting.tag == tag_ && (any || waiting.source == source_)) {
      return false;
    }
  }
  return true;
}

bool Receiving::find() {
  int found = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  if (is_next()) {
    check(MPI_Improbe(source_, tag_, communicator_->handle, &found, &message, &status), "MPI_Improbe");
  }
  if (!found) {
    return false;
  }
  found_ = true;
  source_ = status.MPI_SOURCE;
  auto& line = communicator_->line;
  line.erase(std::find_if(line.begin(), line.end(), [this](const auto& waiting) { return waiting.ticket == ticket_; }));

  MPI_Count length = 0;
  check(MPI_Get_elements_x(&status, MPI_BYTE, &length), "MPI_Get_elements_x");
  if (length != block_.bytes) {
    std::vector<char> discarded(length);
    const BlockType as(length);
    check(MPI_Mrecv(discarded.data(), as.count, as.type, &message, MPI_STATUS_IGNORE), "MPI_Mrecv");
    TORCH_CHECK(false, "mpi:recv: rank ", source_, " sent ", length, " bytes where ", block_.bytes, " were expected");
  }
  const BlockType as(block_.bytes);
  check(MPI_Imrecv(block_.data, as.count, as.type, &message, &request_), "MPI_Imrecv");
  return true;
}

} // namespace glmpatch
