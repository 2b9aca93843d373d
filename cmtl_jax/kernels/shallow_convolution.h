// The first layer's convolution of stride 1, of pictures of few channels, and its kernel's
// gradient: y = mask(conv(x) + bias). Vectors hold the channels of y.

#ifndef CMTL_JAX_KERNELS_SHALLOW_CONVOLUTION_H_
#define CMTL_JAX_KERNELS_SHALLOW_CONVOLUTION_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "threads.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {
namespace shallow_convolution {

constexpr int PIXELS = 12;  // of a row of y at a time
constexpr int SIDE = 9;     // of the kernel, at most

// A strip of a picture with side / 2 rows more above and below, zeros around it: [rows][width +
// side - 1 + PIXELS][channels].
struct Padded {
  Buffer memory;
  int64_t line;  // floats

  Padded(const float* pictures, const Strip& strip, int64_t height, int64_t width, int64_t channels,
         int side)
      : memory((strip.end - strip.first + side - 1) * (width + side - 1 + PIXELS) * channels),
        line((width + side - 1 + PIXELS) * channels) {
    const float* picture = pictures + strip.picture * height * width * channels;
    const int64_t rows = strip.end - strip.first + side - 1;
    std::memset(memory.data(), 0, rows * line * sizeof(float));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t y = strip.first + r - side / 2;
      if (y < 0 || y >= height) continue;
      std::memcpy(memory.data() + r * line + side / 2 * channels, picture + y * width * channels,
                  width * channels * sizeof(float));
    }
  }
  const float* row(int64_t r) const { return memory.data() + r * line; }
};

int64_t valid(const Ints& sizes, int64_t picture, int axis, int64_t side) {
  return std::min<int64_t>(sizes.typed_data()[2 * picture + axis], side);
}

ffi::Error forward(ffi::ThreadPool pool, Floats x, Floats kernel, Floats bias, Ints sizes, Out y) {
  const auto shape = x.dimensions(), sides = kernel.dimensions();
  const int64_t height = shape[1], width = shape[2], n_in = shape[3], n_out = sides[3];
  const int side = static_cast<int>(sides[0]);
  const float* w = kernel.typed_data();
  parallel_for(pool, shape[0] * Strip::per_picture(height), [&](int64_t number) {
    const Strip strip(number, height);
    const auto [picture, first, end] = strip;
    const Padded padded(x.typed_data(), strip, height, width, n_in, side);
    const int64_t bottom = valid(sizes, picture, 0, height);
    const int64_t right = valid(sizes, picture, 1, width);
    for (int64_t r = first; r < end; ++r) {
      float* to = y->typed_data() + (picture * height + r) * width * n_out;
      const int64_t inside = r < bottom ? right : 0;
      std::memset(to + inside * n_out, 0, (width - inside) * n_out * sizeof(float));
      for (int group = 0; group < groups(n_out); ++group) {
        const int lanes = lanes_of(n_out, group);
        const vec shift = load(bias.typed_data() + group * V, lanes);
        for (int64_t c = 0; c < inside; c += PIXELS) {
          vec sums[PIXELS];
#pragma GCC unroll 12
          for (int i = 0; i < PIXELS; ++i) sums[i] = shift;
          for (int a = 0; a < side; ++a) {
            const float* from = padded.row(r - first + a) + c * n_in;
            const float* weights = w + int64_t{a} * side * n_in * n_out + group * V;
            for (int64_t b = 0; b < side * n_in; ++b, weights += n_out) {
              const vec k = load(weights, lanes);
#pragma GCC unroll 12
              for (int i = 0; i < PIXELS; ++i) sums[i] += from[i * n_in + b] * k;
            }
          }
          const int64_t number = std::min<int64_t>(PIXELS, inside - c);
          for (int64_t i = 0; i < number; ++i) {
            store(to + (c + i) * n_out + group * V, sums[i], lanes);
          }
        }
      }
    }
  });
  return ffi::Error::Success();
}

// One row of the kernel and one channel of x: sums[b] += x[row][c + b] d[row][c] over the pixels c.
template <int N>
ALWAYS_INLINE void add_row(const float* x, int64_t n_in, const float* d, int64_t n_out, int lanes,
                           int64_t pixels, vec (&sums)[SIDE]) {
  for (int64_t c = 0; c < pixels; ++c) {
    const vec g = load(d + c * n_out, lanes);
#pragma GCC unroll 9
    for (int b = 0; b < N; ++b) sums[b] += x[(c + b) * n_in] * g;
  }
}

ffi::Error backward(ffi::ThreadPool pool, Floats x, Ints sizes, Floats d, Out kernel_bar,
                    Out bias_bar) {
  const auto shape = x.dimensions(), sides = kernel_bar->dimensions();
  const int64_t height = shape[1], width = shape[2], n_in = shape[3], n_out = sides[3];
  const int side = static_cast<int>(sides[0]);
  const int64_t strips = shape[0] * Strip::per_picture(height);
  const int64_t number = int64_t{side} * side * n_in * n_out + n_out;  // and the bias
  // Strips go to a fixed number of sums, so that these do not depend on which thread is first.
  const int64_t num_slices = std::min(num_threads(pool), strips);
  std::vector<std::vector<double>> totals(num_slices, std::vector<double>(number));
  parallel_for(pool, num_slices, [&](int64_t slice) {
    std::vector<double>& to = totals[slice];
    for (int64_t i = strips * slice / num_slices; i < strips * (slice + 1) / num_slices; ++i) {
      const Strip strip(i, height);
      const auto [picture, first, end] = strip;
      const Padded padded(x.typed_data(), strip, height, width, n_in, side);
      const int64_t bottom = std::min(end, valid(sizes, picture, 0, height));
      const int64_t right = valid(sizes, picture, 1, width);
      const float* g = d.typed_data() + (picture * height + first) * width * n_out;
      for (int group = 0; group < groups(n_out); ++group) {
        const int lanes = lanes_of(n_out, group);
        for (int a = 0; a < side; ++a) {
          for (int64_t channel = 0; channel < n_in; ++channel) {
            vec sums[SIDE] = {};
            for (int64_t r = first; r < bottom; ++r) {
              const float* from = padded.row(r - first + a) + channel;
              const float* line = g + (r - first) * width * n_out + group * V;
              switch (side) {
                case 9:
                  add_row<9>(from, n_in, line, n_out, lanes, right, sums);
                  break;
                case 7:
                  add_row<7>(from, n_in, line, n_out, lanes, right, sums);
                  break;
                case 5:
                  add_row<5>(from, n_in, line, n_out, lanes, right, sums);
                  break;
                default:
                  add_row<3>(from, n_in, line, n_out, lanes, right, sums);
              }
            }
            for (int b = 0; b < side; ++b) {
              const int64_t at = ((int64_t{a} * side + b) * n_in + channel) * n_out + group * V;
              for (int lane = 0; lane < lanes; ++lane) to[at + lane] += sums[b][lane];
            }
          }
        }
        vec sum = {};
        for (int64_t r = first; r < bottom; ++r) {
          const float* line = g + (r - first) * width * n_out + group * V;
          for (int64_t c = 0; c < right; ++c) sum += load(line + c * n_out, lanes);
        }
        for (int lane = 0; lane < lanes; ++lane) to[number - n_out + group * V + lane] += sum[lane];
      }
    }
  });
  for (int64_t i = 0; i < number; ++i) {
    double sum = 0;
    for (const auto& part : totals) sum += part[i];
    float* to = i < number - n_out ? kernel_bar->typed_data() + i
                                   : bias_bar->typed_data() + (i - (number - n_out));
    *to = static_cast<float>(sum);
  }
  return ffi::Error::Success();
}

}  // namespace shallow_convolution
}  // namespace

#endif  // CMTL_JAX_KERNELS_SHALLOW_CONVOLUTION_H_
