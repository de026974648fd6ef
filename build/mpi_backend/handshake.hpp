// What comes before MPI_Comm_create_group: that call blocks, so every member says first that it is there.
#pragma once

#include <mpi.h>

#include <string>
#include <vector>

namespace glmpatch {

// The first of `ranks` hears from each of the others and then answers them, so it knows who is missing.
class Handshake {
 public:
  // `ranks` are those of `comm`, `rank` is this process's. Groups are made in the same order by all who share some.
  Handshake(MPI_Comm comm, std::vector<int> ranks, int rank, int tag);

  // Starts at the first call; true once all are there. Throws c10::DistBackendError.
  bool poll();

  std::string waits_for() const;

 private:
  bool leads() const;
  void send(int rank);
  void receive(int rank);

  MPI_Comm comm_;
  std::vector<int> ranks_;
  int rank_;
  int tag_;
  enum { Idle, Gathering, Answering } state_ = Idle;
  std::vector<MPI_Request> requests_;
};

} // namespace glmpatch
