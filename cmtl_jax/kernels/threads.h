// Memory and threads of the kernels.

#ifndef CMTL_JAX_KERNELS_THREADS_H_
#define CMTL_JAX_KERNELS_THREADS_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// Buffers are kept for the next call: fresh memory costs more than what is done with it here.
class Buffers {
 public:
  static float* take(size_t floats, size_t& capacity) {
    constexpr size_t page = size_t{1} << 21;
    const size_t bytes = (floats * sizeof(float) + page - 1) / page * page;
    {
      std::lock_guard<std::mutex> lock(mutex());
      auto& free = list();
      auto best = free.end();
      for (auto it = free.begin(); it != free.end(); ++it) {
        if (it->first >= bytes && (best == free.end() || it->first < best->first)) best = it;
      }
      if (best != free.end() && best->first <= 2 * bytes) {
        const auto found = *best;
        free.erase(best);
        capacity = found.first;
        return found.second;
      }
    }
    void* memory = std::aligned_alloc(page, bytes);
    if (memory == nullptr) std::abort();
#if defined(__linux__)
    madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    capacity = bytes;
    return static_cast<float*>(memory);
  }
  static void give(float* memory, size_t capacity) {
    std::lock_guard<std::mutex> lock(mutex());
    list().emplace_back(capacity, memory);
    if (list().size() > 64) {
      std::free(list().front().second);
      list().erase(list().begin());
    }
  }

 private:
  static std::mutex& mutex() {
    static auto* m = new std::mutex;
    return *m;
  }
  static std::vector<std::pair<size_t, float*>>& list() {
    static auto* l = new std::vector<std::pair<size_t, float*>>;
    return *l;
  }
};

class Buffer {
 public:
  explicit Buffer(size_t floats) { data_ = Buffers::take(floats, capacity_); }
  ~Buffer() { Buffers::give(data_, capacity_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  float* data() const { return data_; }

 private:
  float* data_;
  size_t capacity_;
};

inline int64_t num_threads(const ffi::ThreadPool& pool) {
  return std::max<int64_t>(pool.num_threads(), 1);  // 0 where XLA cannot say it
}

// Calls work(i) for i below n, here and in the pool. Waits for what has begun, never for a task
// that the pool has not come to: several calls at a time cannot block each other.
template <typename Work>
void parallel_for(ffi::ThreadPool& pool, int64_t n, Work work) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  int64_t helpers = std::min(num_threads(pool), n) - 1;
  auto shared = std::make_shared<Shared>();
  // The pointer is followed only for i < n, so only while this call waits.
  Work* pointer = &work;
  auto run = [shared, pointer, n] {
    for (;;) {
      int64_t i = shared->next.fetch_add(1);
      if (i >= n) return;
      (*pointer)(i);
      if (shared->done.fetch_add(1) + 1 == n) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_all();
      }
    }
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(run)(run));
  run();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done.load() == n; });
}

using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using Out = ffi::ResultBuffer<ffi::F32>;

// Rows of one picture that a thread takes at a time.
struct Strip {
  static constexpr int64_t ROWS = 8;

  int64_t picture, first, end;

  Strip(int64_t number, int64_t height) {
    picture = number / per_picture(height);
    first = number % per_picture(height) * ROWS;
    end = std::min(height, first + ROWS);
  }
  static int64_t per_picture(int64_t height) { return (height + ROWS - 1) / ROWS; }
};

}  // namespace

#endif  // CMTL_JAX_KERNELS_THREADS_H_
