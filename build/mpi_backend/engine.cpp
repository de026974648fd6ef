#include "engine.hpp"

#include <c10/util/Exception.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <optional>

namespace glmpatch {

namespace {

constexpr auto kSpin = std::chrono::microseconds(50);
constexpr auto kYield = std::chrono::milliseconds(1);
constexpr auto kShortestSleep = std::chrono::microseconds(50);
constexpr auto kLongestSleep = std::chrono::microseconds(2000);
constexpr unsigned kAbortGrace = 10; // seconds

std::atomic<bool> process_was_forked{false};

void ensure_not_forked() {
  TORCH_CHECK(!process_was_forked,
              "this process was forked from one that had initialised MPI, and a forked child can't call MPI; "
              "use the start method 'spawn', or call no collective in the child");
}

// The handshake before a group is made: MPI_Comm_create_group blocks, so every member says first that it is there. The
// first member collects them, and so knows who is missing.
class Handshake {
 public:
  Handshake(MPI_Comm control, std::vector<int> ranks, int rank, int tag)
      : control_(control), ranks_(std::move(ranks)), rank_(rank), tag_(tag) {}

  bool poll() {
    if (requests_.empty()) {
      leads() ? receive_all() : greet();
    }
    if (!all_complete()) {
      return false;
    }
    if (leads() && !answered_) {
      answer_all();
      return all_complete();
    }
    return true;
  }

  std::string waits_for() {
    if (!leads()) {
      return c10::str("rank ", ranks_.front(), " has not heard from every member");
    }
    std::string missing;
    for (size_t i = 0; i < requests_.size() && !answered_; ++i) {
      int complete = 0;
      MPI_Request_get_status(requests_[i], &complete, MPI_STATUS_IGNORE);
      if (!complete) {
        missing += c10::str(missing.empty() ? "" : ", ", ranks_[i + 1]);
      }
    }
    return "not here yet: rank " + missing;
  }

 private:
  bool leads() const { return rank_ == ranks_.front(); }

  MPI_Request* next() {
    requests_.push_back(MPI_REQUEST_NULL);
    return &requests_.back();
  }

  void receive_all() {
    requests_.reserve(ranks_.size());
    for (size_t i = 1; i < ranks_.size(); ++i) {
      check(MPI_Irecv(nullptr, 0, MPI_BYTE, ranks_[i], tag_, control_, next()), "MPI_Irecv");
    }
  }

  void answer_all() {
    answered_ = true;
    requests_.clear();
    for (size_t i = 1; i < ranks_.size(); ++i) {
      check(MPI_Isend(nullptr, 0, MPI_BYTE, ranks_[i], tag_, control_, next()), "MPI_Isend");
    }
  }

  void greet() {
    requests_.reserve(2);
    check(MPI_Isend(nullptr, 0, MPI_BYTE, ranks_.front(), tag_, control_, next()), "MPI_Isend");
    check(MPI_Irecv(nullptr, 0, MPI_BYTE, ranks_.front(), tag_, control_, next()), "MPI_Irecv");
  }

  bool all_complete() {
    int complete = 0;
    check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &complete, MPI_STATUSES_IGNORE),
          "MPI_Testall");
    return complete != 0;
  }

  MPI_Comm control_;
  std::vector<int> ranks_;
  int rank_;
  int tag_;
  bool answered_ = false;
  std::vector<MPI_Request> requests_;
};

} // namespace

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) {
    return;
  }
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  TORCH_CHECK_WITH(DistBackendError, false, call, ": ", std::string(text, length));
}

Engine& Engine::get() {
  // Never destroyed: its worker may outlive the static objects, and the exit handler needs it.
  static auto* engine = new Engine;
  return *engine;
}

std::atomic<Engine*> Engine::instance_{nullptr};

Engine::Engine() {
  int initialised = 0;
  int provided = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialised);
  if (initialised) {
    int finalised = 0;
    MPI_Finalized(&finalised);
    TORCH_CHECK(!finalised, "MPI was finalised in this process and can't be initialised again");
    MPI_Query_thread(&provided);
  } else {
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
    owner_ = true;
  }
  TORCH_CHECK(provided >= MPI_THREAD_SERIALIZED, "MPI was initialised with thread level ", provided,
              "; the mpi backend needs MPI_THREAD_SERIALIZED (", int{MPI_THREAD_SERIALIZED},
              "). With mpi4py: set mpi4py.rc.thread_level before MPI is imported");
  pthread_atfork(nullptr, nullptr, [] { process_was_forked = true; });

  control_ = std::make_shared<Communicator>();
  check(MPI_Comm_dup(MPI_COMM_WORLD, &control_->handle), "MPI_Comm_dup");
  check(MPI_Comm_set_errhandler(control_->handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  MPI_Comm_rank(control_->handle, &control_->rank);
  MPI_Comm_size(control_->handle, &control_->size);
  control_->world_ranks.resize(control_->size);
  std::iota(control_->world_ranks.begin(), control_->world_ranks.end(), 0);
  if (owner_) {
    on_exit(at_exit, nullptr);
  }
  worker_ = std::thread(&Engine::run_worker, this);
  instance_ = this;
}

void Engine::submit(const std::shared_ptr<Operation>& operation, bool wake) {
  ensure_not_forked();
  std::lock_guard<std::mutex> lock(mutex_);
  TORCH_CHECK(!quit_, operation->title, ": the mpi backend has ended with the interpreter");
  incoming_.push_back(operation);
  if (wake || driver_ != std::thread::id()) {
    work_cv_.notify_all();
  }
}

bool Engine::wait(Operation& operation, Clock::time_point deadline) {
  ensure_not_forked();
  const auto self = std::this_thread::get_id();
  const auto until = [&] { return operation.done || Clock::now() >= deadline; };
  std::unique_lock<std::mutex> lock(mutex_);
  while (!until()) {
    if (driver_ == self) { // a callback of an operation that this thread completes
      lock.unlock();
      drive(until);
      lock.lock();
    } else if (driver_ == std::thread::id()) {
      driver_ = self;
      lock.unlock();
      drive(until);
      lock.lock();
      driver_ = std::thread::id();
      done_cv_.notify_all();
      work_cv_.notify_all();
    } else if (deadline == Clock::time_point::max()) {
      done_cv_.wait(lock);
    } else {
      done_cv_.wait_until(lock, deadline);
    }
  }
  return operation.done;
}

void Engine::run_worker() {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto idle = [&] { return incoming_.empty() && collectives_.empty() && messages_.empty(); };
  while (true) {
    work_cv_.wait(lock, [&] { return driver_ == std::thread::id() && (quit_ || !idle()); });
    if (idle()) {
      return;
    }
    driver_ = std::this_thread::get_id();
    lock.unlock();
    drive([&] {
      std::lock_guard<std::mutex> guard(mutex_);
      return idle();
    });
    lock.lock();
    driver_ = std::thread::id();
    done_cv_.notify_all();
  }
}

void Engine::drive(const std::function<bool()>& until) {
  auto last_progress = Clock::now();
  while (!until()) {
    if (step()) {
      last_progress = Clock::now();
    } else {
      pause(last_progress);
    }
  }
}

// One look at everything that is under way. Returns whether anything was completed.
bool Engine::step() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& operation : incoming_) {
      operation->collective ? collectives_.push_back(operation) : messages_.push_back(operation);
    }
    incoming_.clear();
  }
  std::vector<std::shared_ptr<Operation>> finished;
  for (auto message = messages_.begin(); message != messages_.end();) {
    if (advance(**message)) {
      finished.push_back(*message);
      message = messages_.erase(message);
    } else {
      ++message;
    }
  }
  if (!collectives_.empty() && advance(*collectives_.front())) {
    finished.push_back(collectives_.front());
    collectives_.pop_front();
  }
  for (auto& operation : finished) { // last, for a callback may wait, and so come back here
    finish(operation);
  }
  return !finished.empty();
}

bool Engine::advance(Operation& operation) {
  auto& group = *operation.group;
  try {
    TORCH_CHECK_WITH(DistBackendError, group.failure.empty(), operation.title,
                     ": this group can't go on, for an earlier collective failed: ", group.failure);
    if (!operation.started) {
      operation.started = true;
      operation.deadline = Clock::now() + operation.timeout;
    }
    if (operation.poll()) {
      if (operation.run) {
        operation.run();
      }
      return true;
    }
    if (Clock::now() < operation.deadline) {
      return false;
    }
    TORCH_CHECK_WITH(DistBackendError, false, operation.title, " timed out after ", operation.timeout.count(),
                     " ms: rank ", group.rank, " of the group of ranks ", c10::Join(", ", group.world_ranks),
                     " waits in vain", operation.waits_for ? "; " + operation.waits_for() : "");
  } catch (const std::exception& error) {
    operation.error = std::current_exception();
    // A timeout leaves a request behind, an MPI error ranks that disagree. Errors of usage are thrown on all ranks
    // alike.
    if (dynamic_cast<const c10::DistBackendError*>(&error) &&
        (operation.collective || Clock::now() >= operation.deadline)) {
      failed_ = true;
      if (group.failure.empty()) {
        const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
        group.failure = torch_error->what_without_backtrace();
      }
    }
    return true;
  }
}

void Engine::finish(const std::shared_ptr<Operation>& operation) {
  {
    std::lock_guard<std::recursive_mutex> lock(python_);
    if (!stopped_ || std::this_thread::get_id() != worker_.get_id()) {
      operation->complete(operation->error);
      operation->poll = nullptr; // what these hold refers back to the operation
      operation->run = nullptr;
      operation->complete = nullptr;
    } else {
      new std::shared_ptr<Operation>(operation); // to release a tensor may take the GIL, which no thread gets any more
    }
  }
  std::lock_guard<std::mutex> lock(mutex_);
  operation->done = true;
  done_cv_.notify_all();
}

void Engine::pause(Clock::time_point idle_since) {
  const auto idle = Clock::now() - idle_since;
  if (idle < kSpin) {
    return;
  }
  const bool bulky =
      std::any_of(messages_.begin(), messages_.end(), [](const auto& message) { return message->bulky; });
  if (idle < kYield || bulky) {
    sched_yield();
    return;
  }
  const auto sleep = std::clamp<Clock::duration>(idle / 16, kShortestSleep, kLongestSleep);
  std::unique_lock<std::mutex> lock(mutex_);
  work_cv_.wait_for(lock, sleep, [&] { return !incoming_.empty(); });
}

std::shared_ptr<Communicator> Engine::create(std::vector<int> ranks, milliseconds timeout) {
  constexpr int kTag = 1;
  auto created = std::make_shared<Communicator>();
  created->world_ranks = ranks.empty() ? control_->world_ranks : std::move(ranks);
  auto handshake = std::make_shared<Handshake>(control_->handle, created->world_ranks, control_->rank, kTag);

  auto operation = std::make_shared<Operation>();
  operation->title = "making a group of ranks " + c10::str(c10::Join(", ", created->world_ranks));
  operation->group = control_;
  operation->timeout = timeout;
  operation->poll = [handshake] { return handshake->poll(); };
  operation->waits_for = [handshake] { return handshake->waits_for(); };
  operation->run = [this, created] {
    MPI_Group all = MPI_GROUP_NULL;
    MPI_Group members = MPI_GROUP_NULL;
    check(MPI_Comm_group(control_->handle, &all), "MPI_Comm_group");
    check(MPI_Group_incl(all, static_cast<int>(created->world_ranks.size()), created->world_ranks.data(), &members),
          "MPI_Group_incl");
    check(MPI_Comm_create_group(control_->handle, members, kTag, &created->handle), "MPI_Comm_create_group");
    check(MPI_Comm_set_errhandler(created->handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MPI_Group_free(&members);
    MPI_Group_free(&all);
    MPI_Comm_rank(created->handle, &created->rank);
    MPI_Comm_size(created->handle, &created->size);
  };
  std::exception_ptr error;
  operation->complete = [&error](std::exception_ptr e) { error = std::move(e); };
  submit(operation, /*wake=*/false);
  wait(*operation, Clock::time_point::max());
  if (error) {
    std::rethrow_exception(error);
  }
  return created;
}

void Engine::free(const std::shared_ptr<Communicator>& communicator) {
  if (process_was_forked) {
    return;
  }
  auto operation = std::make_shared<Operation>();
  operation->title = "freeing a group";
  operation->group = control_;
  operation->timeout = std::chrono::hours(1);
  operation->poll = [] { return true; };
  operation->run = [communicator] {
    int finalised = 0;
    MPI_Finalized(&finalised);
    if (!finalised && communicator->failure.empty() && communicator->handle != MPI_COMM_NULL) {
      check(MPI_Comm_free(&communicator->handle), "MPI_Comm_free");
    }
  };
  operation->complete = [](const std::exception_ptr&) {};
  std::lock_guard<std::mutex> lock(mutex_);
  if (!quit_) {
    incoming_.push_back(operation);
    work_cv_.notify_all();
  }
}

void Engine::stop() {
  Engine* engine = instance_;
  if (!engine || process_was_forked) {
    return;
  }
  {
    std::lock_guard<std::recursive_mutex> lock(engine->python_);
    engine->stopped_ = true;
  }
  if (!engine->owner_) { // whoever initialised MPI may finalise it as soon as this returns
    engine->drain();
  }
}

// Waits until all that was queued has run, and ends the worker.
void Engine::drain() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    quit_ = true;
    work_cv_.notify_all();
  }
  if (worker_.joinable()) {
    worker_.join();
  }
}

// Waits, asleep, for the other ranks to come to their end: MPI_Finalize would spin on a core that a busy rank could
// use.
void Engine::finalise() {
  drain();
  if (!failed_) {
    MPI_Request request = MPI_REQUEST_NULL;
    int complete = 0;
    const auto start = Clock::now();
    MPI_Ibarrier(control_->handle, &request);
    while (MPI_Test(&request, &complete, MPI_STATUS_IGNORE) == MPI_SUCCESS && !complete) {
      pause(start);
    }
    MPI_Finalize();
  }
}

// glibc's on_exit tells the status, which atexit does not: a rank that fails must not wait in MPI_Finalize for ranks
// that wait for it in a collective.
void Engine::at_exit(int status, void*) {
  Engine& engine = *instance_;
  int finalised = 0;
  MPI_Finalized(&finalised);
  if (process_was_forked || finalised) {
    return;
  }
  if (status == 0) {
    engine.finalise();
    if (!engine.failed_) {
      return;
    }
    std::fprintf(stderr, "glmpatch-mpi: a collective failed in this process, so the job is ended as failed\n");
  }
  // The worker may be stuck within MPI. If so, end by the alarm: the launcher then ends the other ranks.
  signal(SIGALRM, SIG_DFL);
  alarm(kAbortGrace);
  MPI_Abort(MPI_COMM_WORLD, status ? status : 1);
}

} // namespace glmpatch
