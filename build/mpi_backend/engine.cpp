#include "engine.hpp"

#include "handshake.hpp"

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
constexpr auto kLeastBlocking = std::chrono::seconds(10); // however short the timeout of the group
constexpr unsigned kAbortGrace = 10;                      // seconds

std::atomic<bool> process_was_forked{false};

void ensure_not_forked() {
  TORCH_CHECK(!process_was_forked,
              "this process was forked from one that had initialised MPI, and a forked child can't call MPI; "
              "use the start method 'spawn', or call no collective in the child");
}

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
    // MPI may take an error of a request for one of these, and not for one of the communicator of its operation.
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
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
  std::thread(&Engine::watch, this).detach();
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
  const auto over = [&] { return operation.done || Clock::now() >= deadline || is_orphan(); };
  std::unique_lock<std::mutex> lock(mutex_);
  while (!over()) {
    if (driver_ == std::thread::id() && !operation.handed_over) {
      driver_ = std::this_thread::get_id();
      lock.unlock();
      drive([&] { return operation.handed_over || over(); });
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
  done_cv_.wait(lock, [this] { return !is_orphan(); }); // for ever, if it is one: there is no Python to return to
  return operation.done;
}

// Whether this is a daemon thread of Python's, and the interpreter is ending.
bool Engine::is_orphan() const {
  return ending_ && std::this_thread::get_id() != ender_;
}

bool Engine::idle() const {
  const auto can_be_dropped = [this](const auto& message) { return quit_ && message->expendable; };
  return incoming_.empty() && collectives_.empty() && std::all_of(messages_.begin(), messages_.end(), can_be_dropped);
}

void Engine::run_worker() {
  std::unique_lock<std::mutex> lock(mutex_);
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
    if (advance(*message)) {
      finished.push_back(*message);
      message = messages_.erase(message);
    } else {
      ++message;
    }
  }
  if (!collectives_.empty() && advance(collectives_.front())) {
    finished.push_back(collectives_.front());
    collectives_.pop_front();
  }
  for (const auto& operation : finished) {
    finish(operation);
  }
  return !finished.empty();
}

bool Engine::advance(const std::shared_ptr<Operation>& shared) {
  auto& operation = *shared;
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
        run_blocking(shared);
      }
      return true;
    }
    if (Clock::now() < operation.deadline) {
      return false;
    }
    operation.abandoned = true;
    TORCH_CHECK_WITH(DistBackendError, false, operation.title, ": Timed out after ", operation.timeout.count(),
                     " ms: rank ", group.rank, " of the group of ranks ", c10::Join(", ", group.world_ranks),
                     " waits in vain", operation.waits_for ? "; " + operation.waits_for() : "");
  } catch (const std::exception& error) {
    operation.error = std::current_exception();
    // Behind a timeout or an error of MPI's the ranks may disagree on what comes next. Errors of usage are thrown on
    // all alike, and those of a message concern no other.
    const auto* of_mpi = dynamic_cast<const c10::DistBackendError*>(&error);
    if (of_mpi && (operation.collective || operation.abandoned)) {
      failed_ = true;
      if (group.failure.empty()) {
        group.failure = of_mpi->what_without_backtrace();
      }
    }
    return true;
  }
}

void Engine::run_blocking(const std::shared_ptr<Operation>& operation) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocking_ = operation;
    blocking_until_ = Clock::now() + std::max<Clock::duration>(operation->timeout, kLeastBlocking);
  }
  const auto over = [this](void*) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocking_ = nullptr;
  };
  const std::unique_ptr<void, decltype(over)> guard(this, over);
  operation->run();
}

// A blocking call of MPI can't be ended, only the process can. All ranks had arrived; but one may have given up just
// before the last did, or have been stopped since.
void Engine::watch() {
  constexpr auto kInterval = std::chrono::milliseconds(500);
  while (true) {
    std::this_thread::sleep_for(kInterval);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (blocking_ && Clock::now() >= blocking_until_) {
      const auto& group = *blocking_->group;
      std::fprintf(stderr,
                   "glmpatch-mpi: %s: Timed out after %lld ms: rank %d of the group of ranks %s is stuck within MPI\n",
                   blocking_->title.c_str(), static_cast<long long>(blocking_->timeout.count()), group.rank,
                   c10::str(c10::Join(", ", group.world_ranks)).c_str());
      end_job(EXIT_FAILURE);
    }
  }
}

void Engine::finish(const std::shared_ptr<Operation>& operation) {
  bool told = false;
  const bool alive = completions_.run([&] { told = operation->complete(operation->error, /*may_block=*/false); });
  if (told || !alive) {
    conclude(operation, told);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    operation->handed_over = true;
    done_cv_.notify_all();
  }
  completions_.push([this, operation] {
    const bool told = completions_.run([&] { operation->complete(operation->error, /*may_block=*/true); });
    conclude(operation, told);
  });
}

void Engine::conclude(const std::shared_ptr<Operation>& operation, bool told) {
  if (told && !operation->abandoned) {
    operation->poll = nullptr; // what these hold refers back to the operation
    operation->run = nullptr;
    operation->complete = nullptr;
  } else {
    new std::shared_ptr<Operation>(operation); // kept for ever: to release a tensor may need a Python that has ended
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
  operation->complete = [&error](const std::exception_ptr& found, bool) {
    error = found;
    return true;
  };
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
  operation->complete = [](const std::exception_ptr&, bool) { return true; };
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
  engine->completions_.stop();
  {
    const std::lock_guard<std::mutex> lock(engine->mutex_);
    engine->ender_ = std::this_thread::get_id();
    engine->ending_ = true;
    engine->done_cv_.notify_all();
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

// Waits, asleep, until all ranks are at their end, which MPI_Finalize would do spinning, on a core that a busy rank
// could use. Until then, what others still send is received.
void Engine::meet_at_the_end() {
  MPI_Request request = MPI_REQUEST_NULL;
  int complete = 0;
  auto last_progress = Clock::now();
  MPI_Ibarrier(control_->handle, &request);
  while (!complete || !idle()) {
    if (step()) {
      last_progress = Clock::now();
    } else {
      pause(last_progress);
    }
    MPI_Test(&request, &complete, MPI_STATUS_IGNORE);
  }
}

void Engine::finalise() {
  drain();
  if (!failed_) {
    std::thread(&Engine::meet_at_the_end, this).join(); // not this thread, which may still tell users
    MPI_Finalize();
  }
}

// The worker may be stuck within MPI. If so, the alarm ends this process, and the launcher then ends the others.
void Engine::end_job(int status) {
  signal(SIGALRM, SIG_DFL);
  alarm(kAbortGrace);
  MPI_Abort(MPI_COMM_WORLD, status);
  std::abort();
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
  end_job(status ? status : EXIT_FAILURE);
}

} // namespace glmpatch
