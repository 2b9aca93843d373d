// PReLU and 2x2 max pooling of stride 2 in one pass, and its gradient.
//
// [B, H, W, C], H and W even -> [B, H/2, W/2, C]. The gradient goes to the largest of the four, in
// equal parts where several are.

#ifndef CMTL_JAX_KERNELS_PRELU_POOL_H_
#define CMTL_JAX_KERNELS_PRELU_POOL_H_

#include <cstdint>
#include <vector>

#include "threads.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {
namespace prelu_pool {

// The four pixels of a window: offsets of their channels from the first one's.
struct Window {
  int64_t offsets[4];
  Window(int64_t width, int64_t channels)
      : offsets{0, channels, width * channels, (width + 1) * channels} {}
};

ALWAYS_INLINE vec larger(vec a, vec b) { return a > b ? a : b; }

ffi::Error forward(ffi::ThreadPool pool, Floats x, Floats slope, Out y) {
  const auto shape = x.dimensions();
  const int64_t height = shape[1] / 2, width = shape[2] / 2, channels = shape[3];
  const Window window(shape[2], channels);
  const float a = *slope.typed_data();
  parallel_for(pool, shape[0] * Strip::per_picture(height), [&](int64_t number) {
    const Strip strip(number, height);
    for (int64_t row = strip.first; row < strip.end; ++row) {
      const float* from =
          x.typed_data() + (strip.picture * shape[1] + 2 * row) * shape[2] * channels;
      float* to = y->typed_data() + (strip.picture * height + row) * width * channels;
      for (int64_t column = 0; column < width; ++column, from += 2 * channels, to += channels) {
        for (int group = 0; group < groups(channels); ++group) {
          const int lanes = lanes_of(channels, group);
          const float* p = from + group * V;
          vec most = prelu(load(p, lanes), a);
          for (int i = 1; i < 4; ++i) {
            most = larger(most, prelu(load(p + window.offsets[i], lanes), a));
          }
          store(to + group * V, most, lanes);
        }
      }
    }
  });
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, Floats x, Floats slope, Floats d, Out x_bar,
                    Out slope_bar) {
  const auto shape = x.dimensions();
  const int64_t height = shape[1] / 2, width = shape[2] / 2, channels = shape[3];
  const Window window(shape[2], channels);
  const float a = *slope.typed_data();
  std::vector<double> sums(shape[0] * Strip::per_picture(height));
  parallel_for(pool, sums.size(), [&](int64_t number) {
    const Strip strip(number, height);
    for (int64_t row = strip.first; row < strip.end; ++row) {
      const int64_t at = (strip.picture * shape[1] + 2 * row) * shape[2] * channels;
      const float* from = x.typed_data() + at;
      float* to = x_bar->typed_data() + at;
      const float* g = d.typed_data() + (strip.picture * height + row) * width * channels;
      vec row_sum = {};
      for (int64_t column = 0; column < width;
           ++column, from += 2 * channels, to += 2 * channels, g += channels) {
        for (int group = 0; group < groups(channels); ++group) {
          const int lanes = lanes_of(channels, group);
          vec u[4], v[4];
          for (int i = 0; i < 4; ++i) {
            u[i] = load(from + group * V + window.offsets[i], lanes);
            v[i] = prelu(u[i], a);
          }
          const vec most = larger(larger(v[0], v[1]), larger(v[2], v[3]));
          vec equal = {};
          const vec one = vec{} + 1.0f;
          for (int i = 0; i < 4; ++i) equal += v[i] == most ? one : vec{};
          const vec part = load(g + group * V, lanes) / equal;
          for (int i = 0; i < 4; ++i) {
            const vec mine = v[i] == most ? part : vec{};
            row_sum += u[i] >= 0.0f ? vec{} : u[i] * mine;
            store(to + group * V + window.offsets[i], u[i] >= 0.0f ? mine : mine * a, lanes);
          }
        }
      }
      sums[number] += total(row_sum);
    }
  });
  double sum = 0;
  for (double part : sums) sum += part;
  *slope_bar->typed_data() = static_cast<float>(sum);
  return ffi::Error::Success();
}

}  // namespace prelu_pool
}  // namespace

#endif  // CMTL_JAX_KERNELS_PRELU_POOL_H_
