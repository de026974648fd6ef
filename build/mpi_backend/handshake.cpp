#include "handshake.hpp"

#include "engine.hpp"

#include <c10/util/StringUtil.h>

namespace glmpatch {

Handshake::Handshake(MPI_Comm comm, std::vector<int> ranks, int rank, int tag)
    : comm_(comm), ranks_(std::move(ranks)), rank_(rank), tag_(tag) {}

bool Handshake::leads() const {
  return rank_ == ranks_.front();
}

void Handshake::send(int rank) {
  check(MPI_Isend(nullptr, 0, MPI_BYTE, rank, tag_, comm_, &requests_.emplace_back()), "MPI_Isend");
}

void Handshake::receive(int rank) {
  check(MPI_Irecv(nullptr, 0, MPI_BYTE, rank, tag_, comm_, &requests_.emplace_back()), "MPI_Irecv");
}

bool Handshake::poll() {
  if (state_ == Idle) {
    state_ = Gathering;
    if (leads()) {
      for (size_t i = 1; i < ranks_.size(); ++i) {
        receive(ranks_[i]);
      }
    } else {
      send(ranks_.front());
      receive(ranks_.front());
    }
  }
  int complete = 0;
  check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &complete, MPI_STATUSES_IGNORE),
        "MPI_Testall");
  if (!complete || state_ == Answering || !leads()) {
    return complete != 0;
  }
  state_ = Answering;
  requests_.clear();
  for (size_t i = 1; i < ranks_.size(); ++i) {
    send(ranks_[i]);
  }
  return poll();
}

std::string Handshake::waits_for() const {
  if (!leads()) {
    return c10::str("rank ", ranks_.front(), " has not heard from all");
  }
  std::string missing;
  for (size_t i = 0; i < requests_.size() && state_ == Gathering; ++i) {
    int complete = 0;
    MPI_Request_get_status(requests_[i], &complete, MPI_STATUS_IGNORE);
    if (!complete) {
      missing += c10::str(missing.empty() ? "" : ", ", ranks_[i + 1]);
    }
  }
  return missing.empty() ? "all are here" : "not here: rank " + missing;
}

} // namespace glmpatch
