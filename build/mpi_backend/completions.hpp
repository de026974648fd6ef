// Where users learn that an operation is done. That may run code of theirs, which may wait for another operation: so
// the thread that drives the engine must not do it.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace glmpatch {

class Completions {
 public:
  // Runs it here and now. Behind stop() it does so only on the thread that stopped, and else returns false.
  bool run(const std::function<void()>& completion);

  // Has a thread run it. There is one more thread whenever all others are within a completion.
  void push(std::function<void()> completion);

  // From here on none is run; those that run are given some seconds to come to their end.
  void stop();

 private:
  void run_thread();

  std::mutex mutex_;
  std::condition_variable pushed_;
  std::condition_variable ended_;
  std::deque<std::function<void()>> queue_;
  std::size_t idle_ = 0;
  std::size_t running_ = 0;
  std::thread::id stopped_by_;
};

} // namespace glmpatch
