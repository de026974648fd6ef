#include "engine.hpp"

#include "handshake.hpp"

#include <c10/util/ScopeExit.h>
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
constexpr auto kBulkyYield = std::chrono::seconds(1); // where MPI moves something large, unless nobody takes it
constexpr auto kBulkySleep = std::chrono::microseconds(200);
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

Clock::time_point from_now(milliseconds time) {
  constexpr milliseconds kCentury = std::chrono::hours(24 * 365 * 100);
  return Clock::now() + std::min(time, kCentury);
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
  // The worker takes turns with the threads that wait, but not with others that know nothing of it.
  const int needed = owner_ ? MPI_THREAD_SERIALIZED : MPI_THREAD_MULTIPLE;
  TORCH_CHECK(provided >= needed, "MPI was initialised with thread level ", provided, "; the mpi backend needs ",
              owner_ ? "MPI_THREAD_SERIALIZED" : "MPI_THREAD_MULTIPLE", " (", needed,
              "). With mpi4py: leave mpi4py.rc.thread_level at \"multiple\"");
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
  operation.awaited = true;
  const auto over = [&] { return operation.done || Clock::now() >= deadline || is_orphan(); };
  std::unique_lock<std::mutex> lock(mutex_);
  while (!over()) {
    if (driver_ == std::thread::id() && !operation.handed_over) {
      drive(lock, [&] { return operation.handed_over || over(); });
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
    drive(lock, [&] {
      std::lock_guard<std::mutex> guard(mutex_);
      return idle();
    });
  }
}

// Takes the place of the driver and works until then, without the lock. No other thread may have the place.
void Engine::drive(std::unique_lock<std::mutex>& lock, const std::function<bool()>& until) {
  driver_ = std::this_thread::get_id();
  lock.unlock();
  const auto leave = c10::make_scope_exit([&] {
    lock.lock();
    driver_ = std::thread::id();
    done_cv_.notify_all();
    if (quit_ || !idle()) {
      work_cv_.notify_all();
    }
  });
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
      operation.deadline = from_now(operation.timeout);
    }
    if (operation.expendable && group.handle == MPI_COMM_NULL) {
      throw Misuse(operation.title + ": no message came before the group was destroyed");
    }
    if (operation.poll()) {
      if (operation.run) {
        run_blocking(shared);
      }
      return true;
    }
    if (operation.expendable && (quit_ || !operation.awaited)) {
      operation.deadline = from_now(operation.timeout); // the time of a receive runs while somebody waits for it
    }
    if (Clock::now() < operation.deadline) {
      return false;
    }
    TORCH_CHECK_WITH(DistBackendError, false, operation.title, ": Timed out after ", operation.timeout.count(),
                     " ms: rank ", group.rank, " of the group of ranks ", c10::Join(", ", group.world_ranks),
                     " waits in vain", operation.waits_for ? "; " + operation.waits_for() : "");
  } catch (const Misuse&) {
    operation.error = std::current_exception();
  } catch (const std::exception& error) {
    operation.error = std::current_exception();
    operation.abandoned = operation.started;
    failed_ = true; // the ranks may disagree on what comes next
    if (group.failure.empty()) {
      const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
      group.failure = of_torch ? of_torch->what_without_backtrace() : error.what();
    }
  }
  return true;
}

void Engine::run_blocking(const std::shared_ptr<Operation>& operation) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocking_ = operation;
    blocking_until_ = from_now(std::max<milliseconds>(operation->timeout, kLeastBlocking));
  }
  const auto over = c10::make_scope_exit([this] {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocking_ = nullptr;
  });
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
  const bool alive = completions_.run([&] { told = tell(*operation, /*may_block=*/false); });
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
    const bool told = completions_.run([&] { tell(*operation, /*may_block=*/true); });
    conclude(operation, told);
  });
}

// Tells the user, and lets go of the tensors: to release one may need Python.
bool Engine::tell(Operation& operation, bool may_block) {
  const bool told = !operation.complete || operation.complete(operation.error, may_block);
  if (told && !operation.abandoned) {
    operation.poll = nullptr; // what these hold refers back to the operation
    operation.run = nullptr;
    operation.complete = nullptr;
  }
  return told;
}

void Engine::conclude(const std::shared_ptr<Operation>& operation, bool told) {
  if (!told || operation->abandoned) {
    new std::shared_ptr<Operation>(operation); // kept for ever: MPI may still use its tensors, or Python has ended
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
  if (idle < kYield || (bulky && idle < kBulkyYield)) {
    sched_yield();
    return;
  }
  const auto longest = bulky ? kBulkySleep : kLongestSleep;
  const auto sleep = std::clamp<Clock::duration>(idle / 16, kShortestSleep, longest);
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
  submit(operation, /*wake=*/false);
  wait(*operation, Clock::time_point::max());
  if (operation->error) {
    std::rethrow_exception(operation->error);
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
  MPI_Ibarrier(control_->handle, &request);
  std::unique_lock<std::mutex> lock(mutex_);
  drive(lock, [&] {
    MPI_Test(&request, &complete, MPI_STATUS_IGNORE);
    return complete && idle();
  });
}

// Whether MPI is finalised. It is not where a collective failed.
bool Engine::finalise() {
  drain();
  if (failed_) {
    return false;
  }
  std::thread(&Engine::meet_at_the_end, this).join(); // not this thread, which may still tell users
  MPI_Finalize();
  return true;
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
    if (engine.finalise()) {
      return;
    }
    std::fprintf(stderr, "glmpatch-mpi: a collective failed in this process, so the job is ended as failed\n");
  }
  end_job(status ? status : EXIT_FAILURE);
}

} // namespace glmpatch
