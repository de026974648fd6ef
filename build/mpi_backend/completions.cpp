#include "completions.hpp"

#include <chrono>

namespace glmpatch {

bool Completions::run(const std::function<void()>& completion) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_by_ != std::thread::id() && stopped_by_ != std::this_thread::get_id()) {
      return false;
    }
    ++running_;
  }
  completion();
  const std::lock_guard<std::mutex> lock(mutex_);
  --running_;
  ended_.notify_all();
  return true;
}

void Completions::push(std::function<void()> completion) {
  const std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(completion));
  if (idle_ < queue_.size()) {
    std::thread(&Completions::run_thread, this).detach();
  }
  pushed_.notify_one();
}

void Completions::run_thread() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    ++idle_;
    pushed_.wait(lock, [this] { return !queue_.empty(); });
    --idle_;
    const auto completion = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    completion();
    lock.lock();
  }
}

void Completions::stop() {
  constexpr auto kGrace = std::chrono::seconds(5);
  std::unique_lock<std::mutex> lock(mutex_);
  stopped_by_ = std::this_thread::get_id();
  ended_.wait_for(lock, kGrace, [this] { return running_ == 0; });
}

} // namespace glmpatch
