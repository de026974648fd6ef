#include "messages.hpp"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <climits>

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
  if (!(found_ || find()) || !is_complete(request_, "MPI_Imrecv")) {
    return false;
  }
  if (length_ != block_.bytes) {
    throw Misuse(
        c10::str("mpi:recv: rank ", source_, " sent ", length_, " bytes where ", block_.bytes, " were expected"));
  }
  return true;
}

// Whether a message from there is for this receive: they get messages in the order of the program.
bool Receiving::is_next(int source) const {
  const auto first = std::find_if(communicator_->line.begin(), communicator_->line.end(), [&](const auto& waiting) {
    return waiting.tag == tag_ && (waiting.source == MPI_ANY_SOURCE || waiting.source == source);
  });
  return first->ticket == ticket_;
}

bool Receiving::find() {
  int found = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  check(MPI_Iprobe(source_, tag_, communicator_->handle, &found, &status), "MPI_Iprobe");
  if (!found || !is_next(status.MPI_SOURCE)) {
    return false;
  }
  check(MPI_Improbe(status.MPI_SOURCE, tag_, communicator_->handle, &found, &message, &status), "MPI_Improbe");
  found_ = found != 0;
  if (!found_) {
    return false;
  }
  source_ = status.MPI_SOURCE;
  auto& line = communicator_->line;
  line.erase(std::find_if(line.begin(), line.end(), [this](const auto& waiting) { return waiting.ticket == ticket_; }));

  MPI_Count length = 0;
  check(MPI_Get_elements_x(&status, MPI_BYTE, &length), "MPI_Get_elements_x");
  length_ = length;
  char* data = block_.data;
  if (length_ != block_.bytes) {
    unwanted_.resize(length_);
    data = unwanted_.data();
  }
  const BlockType as(length_);
  check(MPI_Imrecv(data, as.count, as.type, &message, &request_), "MPI_Imrecv");
  return true;
}

} // namespace glmpatch
