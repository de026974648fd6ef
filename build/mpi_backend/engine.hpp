// The progress engine: the one place of a process that calls MPI once it is initialised.
//
// A collective runs in two phases. Its arrival is a tiny nonblocking reduction, which is polled: so a rank that waits
// for a late one can time out, sleeps instead of burning the core that the main thread computes on, and lets messages
// pass. Only when every rank is there does the second phase call the blocking collectives, which are the fast ones in
// all MPIs.
#pragma once

#include "completions.hpp"

#include <c10/util/Exception.h>
#include <mpi.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace glmpatch {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Throws c10::DistBackendError with MPI's own text where `code` is an error.
void check(int code, const char* call);

// The point in time so much later; at most a century, as a time point can't tell much more.
Clock::time_point from_now(milliseconds time);

// Something that the ranks, or the two of a message, agree that it can't be done. The group goes on.
class Misuse : public c10::Error {
 public:
  explicit Misuse(std::string what) : c10::Error(std::move(what), {}) {}
};

struct Communicator {
  MPI_Comm handle = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  std::vector<int> world_ranks; // of MPI_COMM_WORLD, in the order of this group

  // Only the driving thread touches these.
  std::string failure; // not empty once a collective failed: the ranks no longer agree on what comes next
  struct Waiting {
    std::uint64_t ticket;
    int source;
    int tag;
  };
  std::deque<Waiting> line; // the receives that have no message yet, in the order of the program
  std::uint64_t tickets = 0;
};

// One collective or message on its way. Only the driving thread touches it before `done`.
struct Operation {
  std::string title; // as in "mpi:all_reduce", for messages
  std::shared_ptr<Communicator> group;
  milliseconds timeout{0};
  bool collective = true;     // collectives run one by one, in the order of the program; messages at any time
  bool expendable = false;    // a receive that no message has come for
  bool bulky = false;         // a message that MPI moves piece by piece, whenever it is polled: little sleep between
  std::function<bool()> poll; // starts it at the first call; true once the other ranks are there
  std::function<void()> run;  // the blocking phase; may be empty
  // Tells the user; may be empty. Where that could run code of theirs and `may_block` is false, it does nothing and
  // returns false.
  std::function<bool(const std::exception_ptr&, bool may_block)> complete;
  std::function<std::string()> waits_for; // for the message of a timeout; may be empty

  Clock::time_point deadline{};
  bool started = false;
  bool abandoned = false; // it failed under way, and MPI may still use what `poll` and `run` hold
  std::exception_ptr error;
  std::atomic<bool> awaited{false};     // somebody has waited for it
  std::atomic<bool> handed_over{false}; // all is done but to tell the user, which another thread does
  std::atomic<bool> done{false};
};

class Engine {
 public:
  // The engine of this process; initialises MPI, or checks how someone else did.
  static Engine& get();

  // Queues an operation. With `wake` the worker thread sees to it; without, the caller waits for it right away.
  void submit(const std::shared_ptr<Operation>& operation, bool wake);

  // Returns whether it is done by the deadline. The waiting thread drives the engine itself where no other does, which
  // spares two context switches.
  bool wait(Operation& operation, Clock::time_point deadline);

  // A communicator of these ranks of MPI_COMM_WORLD, by its members alone; `ranks` empty: all. Blocks until all are
  // there.
  std::shared_ptr<Communicator> create(std::vector<int> ranks, milliseconds timeout);

  // Frees it behind all collectives that were queued before. Receives that no message has come for end with an error.
  void free(const std::shared_ptr<Communicator>& communicator);

  // From here on the worker touches no Python: what is still queued runs, and its tensors are never released.
  static void stop();

 private:
  Engine();
  void run_worker();
  void drive(std::unique_lock<std::mutex>& lock, const std::function<bool()>& until);
  bool step();
  bool advance(const std::shared_ptr<Operation>& operation);
  void run_blocking(const std::shared_ptr<Operation>& operation);
  bool idle() const;
  bool is_orphan() const;
  void finish(const std::shared_ptr<Operation>& operation);
  static bool tell(Operation& operation, bool may_block);
  void conclude(const std::shared_ptr<Operation>& operation, bool told);
  void pause(Clock::time_point idle_since);
  void drain();
  void meet_at_the_end();
  bool finalise();
  void watch();
  [[noreturn]] static void end_job(int status);
  static void at_exit(int status, void*);

  static std::atomic<Engine*> instance_;

  std::shared_ptr<Communicator> control_; // a copy of MPI_COMM_WORLD, for the making of groups and for the end
  bool owner_ = false;                    // MPI was initialised here, so it is finalised here

  std::mutex mutex_;                // guards what follows
  std::condition_variable done_cv_; // an operation is done, or the place of the driver is free
  std::condition_variable work_cv_; // there is something to do
  std::deque<std::shared_ptr<Operation>> incoming_;
  std::thread::id driver_; // the one thread that may call MPI
  std::atomic<bool> quit_{false};
  std::shared_ptr<Operation> blocking_; // what the driver is within MPI for, and how long it may be
  Clock::time_point blocking_until_;
  std::thread worker_;

  std::thread::id ender_;           // the thread that ends the interpreter
  std::atomic<bool> ending_{false}; // once that is known

  // The driver's own.
  std::deque<std::shared_ptr<Operation>> collectives_;
  std::list<std::shared_ptr<Operation>> messages_;

  bool failed_ = false; // some group failed: MPI can no longer be finalised in an orderly way

  Completions completions_;
};

} // namespace glmpatch
