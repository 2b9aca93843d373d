// A layer's convolution of stride 1, by the Fourier transform of overlapping tiles, and its
// gradients: y = mask(conv(prelu(x)) + bias), where the PReLU is that of the layer before.
//
// A picture [B, H, W, C] is cut into windows of T x T pixels that overlap by the kernel's side less
// one. The transform of a window by that of the kernel is the transform of its convolution, of
// which the first T - k + 1 rows and columns are exact; they are written side by side. Sums over
// channels are taken between transforms, as one small matrix product for each frequency.
//
// - Vectors hold channels: every operation of a transform acts on V channels at once.
// - Two windows are one complex tile, the first its real and the second its imaginary part; the
//   kernel is real, so their convolutions come out as real and imaginary part.
// - The kernel's transform is kept for half of the frequencies; the rest are conjugates.
// - The kernel's gradient sums conj(X) D over the tiles before one inverse transform. Of a pair of
//   tiles its real part is the sum of both.
// - A thread takes a block of tiles at a time: it transforms their rows, and then one column of
//   frequencies after the other, so that most of the work happens in the cache.

#ifndef CMTL_JAX_KERNELS_FFT_CONVOLUTION_H_
#define CMTL_JAX_KERNELS_FFT_CONVOLUTION_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "threads.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {
namespace fft_convolution {

// ---- Complex numbers ----------------------------------------------------------------------------

// Copied part by part: as a whole, GCC copies through narrower registers and stalls.
struct Complex {
  vec re, im;

  ALWAYS_INLINE Complex() : re(vec{}), im(vec{}) {}
  ALWAYS_INLINE Complex(vec r, vec i) : re(r), im(i) {}
  ALWAYS_INLINE Complex(const Complex& other) : re(other.re), im(other.im) {}
  ALWAYS_INLINE Complex& operator=(const Complex& other) {
    re = other.re;
    im = other.im;
    return *this;
  }
};

// ---- Transform of 16 complex numbers ------------------------------------------------------------

constexpr int T = 16;            // pixels a side of a tile
constexpr int HALF = T / 2 + 1;  // columns of frequencies that are no conjugates of others
constexpr float SCALE = 1.0f / (T * T);

// cos(2 pi n / 16).
constexpr float COS[5] = {1.0f, 0.923879533f, 0.707106781f, 0.382683432f, 0.0f};

constexpr float cosine(int n) {
  n = ((n % T) + T) % T;
  if (n > T / 2) n = T - n;
  return n <= T / 4 ? COS[n] : -COS[T / 2 - n];
}
constexpr float sine(int n) { return cosine(n - T / 4); }

ALWAYS_INLINE Complex add(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
ALWAYS_INLINE Complex sub(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
ALWAYS_INLINE Complex times_minus_i(Complex a) { return {a.im, -a.re}; }
ALWAYS_INLINE Complex swapped(Complex a) { return {a.im, a.re}; }

// a exp(-2 pi i N / 16)
template <int N>
ALWAYS_INLINE Complex turn(Complex a) {
  if constexpr (N == 0) return a;
  if constexpr (N == 4) return times_minus_i(a);
  constexpr float c = cosine(N), s = sine(N);
  if constexpr (N == 2) return {(a.re + a.im) * c, (a.im - a.re) * c};
  if constexpr (N == 6) return {(a.im - a.re) * s, -(a.re + a.im) * s};
  return {a.re * c + a.im * s, a.im * c - a.re * s};
}

ALWAYS_INLINE void fft4(Complex& a, Complex& b, Complex& c, Complex& d) {
  Complex s = add(a, c), t = sub(a, c), u = add(b, d), v = times_minus_i(sub(b, d));
  a = add(s, u);
  b = add(t, v);
  c = sub(s, u);
  d = sub(t, v);
}

// First step: the numbers J, 4 + J, 8 + J and 12 + J.
template <int J, typename Get>
ALWAYS_INLINE void quarter(Get& get, Complex* t) {
  Complex a = get(J), b = get(4 + J), c = get(8 + J), d = get(12 + J);
  fft4(a, b, c, d);
  t[J] = a;
  t[4 + J] = turn<J>(b);
  t[8 + J] = turn<2 * J>(c);
  t[12 + J] = turn<3 * J>(d);
}

// X[k] = sum over n of x[n] exp(-2 pi i n k / 16), with x[n] = get(n) and put(k, X[k]).
template <typename Get, typename Put>
ALWAYS_INLINE void fft(Get get, Put put) {
  Complex t[T];
  quarter<0>(get, t);
  quarter<1>(get, t);
  quarter<2>(get, t);
  quarter<3>(get, t);
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    Complex* a = t + 4 * q;
    fft4(a[0], a[1], a[2], a[3]);
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) put(q + 4 * p, a[p]);
  }
}

// ---- Shapes -------------------------------------------------------------------------------------

constexpr int PAIRS = 8;       // of tiles in a block, at most
constexpr int VECTOR = 2 * V;  // floats of a complex vector

inline Complex& complex(float* p) { return *reinterpret_cast<Complex*>(p); }
inline const Complex& complex(const float* p) { return *reinterpret_cast<const Complex*>(p); }

struct Tiling {
  int64_t height, width;
  int side;  // of the kernel
  int step;  // pixels of a tile that are exact
  int64_t rows, columns, tiles, pairs;

  Tiling(int64_t batch, int64_t h, int64_t w, int k)
      : height(h), width(w), side(k), step(T - k + 1) {
    rows = (h + step - 1) / step;
    columns = (w + step - 1) / step;
    tiles = batch * rows * columns;
    pairs = (tiles + 1) / 2;
  }
};

// One tile of a picture: where its first pixel lies, and which of its pixels lie in the picture.
struct Tile {
  int64_t first = 0;  // pixel of the batch; may lie outside the picture
  int top = 0, bottom = 0, left = 0, right = 0;

  // Its first pixel lies `before` pixels above and left of its place; it has `extent` pixels a
  // side. What lies outside the sizes [B, 2] of the pictures, where they are given, is no part of
  // them.
  Tile(const Tiling& t, int64_t number, int before, int extent, const int32_t* sizes = nullptr) {
    if (number >= t.tiles) return;
    const int64_t picture = number / (t.rows * t.columns);
    const int64_t height = sizes ? std::min<int64_t>(sizes[2 * picture], t.height) : t.height;
    const int64_t width = sizes ? std::min<int64_t>(sizes[2 * picture + 1], t.width) : t.width;
    const int64_t in_picture = number % (t.rows * t.columns);
    const int64_t y = in_picture / t.columns * t.step - before;
    const int64_t x = in_picture % t.columns * t.step - before;
    first = (picture * t.height + y) * t.width + x;
    top = static_cast<int>(std::max<int64_t>(0, -y));
    left = static_cast<int>(std::max<int64_t>(0, -x));
    bottom = static_cast<int>(std::min<int64_t>(extent, height - y));
    right = static_cast<int>(std::min<int64_t>(extent, width - x));
  }
  bool has(int row) const { return row >= top && row < bottom; }
};

// Tiles of a block after the transform of their rows (or before its inverse): [T columns][slots][T
// rows] complex vectors; a slot is a group of channels of a pair of tiles. Columns lie an odd
// number of cache lines apart, so that they do not displace each other in the cache.
struct Rows {
  float* data;
  int slots;

  int64_t column_stride() const { return int64_t{VECTOR} * slots * T + VECTOR / 2 + VECTOR; }
  float* at(int column, int slot) const {
    return data + column * column_stride() + int64_t{VECTOR} * slot * T;
  }
  static size_t floats(int slots) { return size_t{T} * VECTOR * (slots * T + 2); }
};

size_t kernel_floats(int64_t n_in, int64_t n_out) {
  return size_t{HALF} * T * n_in * groups(n_out) * VECTOR;
}
size_t column_floats(int slots) { return size_t{T} * slots * VECTOR; }

// ---- Rows of tiles ------------------------------------------------------------------------------

// Pictures [B, H, W, channels] as a transform reads them.
struct Source {
  const float* data;
  int64_t channels;
  const int32_t* sizes;  // valid rows and columns of each picture; null: all of them
  bool activate;         // whether PReLU comes first, with this slope
  float slope;
};

// All channels of a pair of tiles, from slot on. With a halo a tile begins side / 2 pixels above
// and left of its place and has all T rows and columns; else only `step`, and the rows below are
// left as they are. Adds the pixels of the tiles without their halo to sums [groups], where these
// are given.
template <bool ACTIVATE>
void transform_rows(const Source& from, const Tiling& t, int64_t pair, bool halo, const Rows& out,
                    int slot, vec* sums) {
  const int before = halo ? t.side / 2 : 0, extent = halo ? T : t.step;
  const int64_t channels = from.channels;
  const Tile tiles[2] = {{t, 2 * pair, before, extent, from.sizes},
                         {t, 2 * pair + 1, before, extent, from.sizes}};
  bool whole = true;
  for (const Tile& tile : tiles) whole = whole && tile.left == 0 && tile.right == T;
  const int64_t stride = out.column_stride(), line_stride = t.width * channels;
  const int num_groups = groups(channels);
  const float slope = from.slope;
  auto read = [=](const float* p, int lanes) {
    const vec v = load(p, lanes);
    return ACTIVATE ? prelu(v, slope) : v;
  };
  Complex line[T];
  for (int r = 0; r < extent; ++r) {
    const float* lines[2];
    bool has[2];
    for (int i = 0; i < 2; ++i) {
      const Tile& tile = tiles[i];
      lines[i] = from.data + tile.first * channels + r * line_stride;
      has[i] = tile.has(r) && tile.left < tile.right;
      if (tile.has(r + 1)) {
        prefetch(lines[i] + line_stride + tile.left * channels,
                 (tile.right - tile.left) * channels);
      }
    }
    for (int group = 0; group < num_groups; ++group) {
      const int lanes = lanes_of(channels, group);
      const float *a = lines[0] + group * V, *b = lines[1] + group * V;
      float* to = out.at(0, slot + group) + r * VECTOR;
      auto put = [&](int k, Complex v) { complex(to + k * stride) = v; };
      if (!has[0] && !has[1]) {
        for (int k = 0; k < T; ++k) put(k, Complex{});
        continue;
      }
      if (whole && has[0] && has[1] && lanes == V) {
        fft([&](int n) { return Complex{read(a + n * channels, V), read(b + n * channels, V)}; },
            put);
      } else {
        for (Complex& c : line) c = Complex();
        if (has[0]) {
          for (int n = tiles[0].left; n < tiles[0].right; ++n) {
            line[n].re = read(a + n * channels, lanes);
          }
        }
        if (has[1]) {
          for (int n = tiles[1].left; n < tiles[1].right; ++n) {
            line[n].im = read(b + n * channels, lanes);
          }
        }
        fft([&](int n) { return line[n]; }, put);
      }
      if (sums == nullptr || r < before || r >= before + t.step) continue;
      for (int i = 0; i < 2; ++i) {
        if (!has[i]) continue;
        const float* p = lines[i] + group * V;
        const int end = std::min(tiles[i].right, before + t.step);
        for (int n = std::max(tiles[i].left, before); n < end; ++n) {
          sums[group] += read(p + n * channels, lanes);
        }
      }
    }
  }
}

void transform_rows(const Source& from, const Tiling& t, int64_t pair, bool halo, const Rows& out,
                    int slot, vec* sums = nullptr) {
  if (from.activate) {
    transform_rows<true>(from, t, pair, halo, out, slot, sums);
  } else {
    transform_rows<false>(from, t, pair, halo, out, slot, sums);
  }
}

// The inverse: the exact part of a pair of tiles, one group of channels, into pictures [B, H, W,
// channels]. Calls put(tile, row, column, first float, vector) for each of their pixels.
template <typename Put>
ALWAYS_INLINE void invert_rows(const Rows& in, int slot, int64_t channels, const Tiling& t,
                               int64_t pair, int group, Put put) {
  const Tile one(t, 2 * pair, 0, t.step), two(t, 2 * pair + 1, 0, t.step);
  const int64_t stride = in.column_stride();
  for (int r = 0; r < std::max(one.bottom, two.bottom); ++r) {
    const float* from = in.at(0, slot) + r * VECTOR;
    const int64_t a = (one.first + r * t.width) * channels + group * V;
    const int64_t b = (two.first + r * t.width) * channels + group * V;
    const int width_one = one.has(r) ? one.right : 0, width_two = two.has(r) ? two.right : 0;
    Complex line[T];
    fft([&](int k) { return complex(from + k * stride); }, [&](int n, Complex v) { line[n] = v; });
    // The numbers were swapped before the inverse.
    for (int n = 0; n < width_one; ++n) put(0, r, n, a + n * channels, line[n].im);
    for (int n = 0; n < width_two; ++n) put(1, r, n, b + n * channels, line[n].re);
  }
}

// ---- Columns of frequencies ---------------------------------------------------------------------

// [T frequencies][slots] of one column.
void transform_column(const Rows& in, int column, float* out) {
  const int64_t stride = int64_t{VECTOR} * in.slots;
  for (int slot = 0; slot < in.slots; ++slot) {
    const float* from = in.at(column, slot);
    float* to = out + VECTOR * slot;
    fft([&](int n) { return complex(from + n * VECTOR); },
        [&](int k, Complex v) { complex(to + k * stride) = v; });
  }
}

void invert_column(const float* in, const Rows& out, int column, int step) {
  const int64_t stride = int64_t{VECTOR} * out.slots;
  for (int slot = 0; slot < out.slots; ++slot) {
    const float* from = in + VECTOR * slot;
    float* to = out.at(column, slot);
    fft([&](int k) { return swapped(complex(from + k * stride)); },
        [&](int n, Complex v) {
          if (n < step) complex(to + n * VECTOR) = v;
        });
  }
}

// ---- Kernels ------------------------------------------------------------------------------------

// Conjugate spectra of a kernel [k, k, Ci, Co] over T * T: [HALF columns][T][Ci][groups of Co]
// complex vectors. One call for one channel in and one group out.
void transform_kernel(const float* kernel, int side, int64_t n_in, int64_t n_out, int64_t channel,
                      int group, float* out) {
  const int lanes = lanes_of(n_out, group);
  const int64_t stride = n_in * groups(n_out) * VECTOR;
  Complex rows[T][HALF], line[T];
  for (int r = 0; r < side; ++r) {
    for (int n = 0; n < side; ++n) {
      const float* from = kernel + ((int64_t{r} * side + n) * n_in + channel) * n_out + group * V;
      line[n].re = load(from, lanes) * SCALE;
    }
    fft([&](int n) { return line[n]; },
        [&](int k, Complex v) {
          if (k < HALF) rows[r][k] = v;
        });
  }
  float* to = out + (channel * groups(n_out) + group) * VECTOR;
  for (int kx = 0; kx < HALF; ++kx) {
    fft([&](int n) { return rows[n][kx]; },
        [&](int ky, Complex v) {
          complex(to + (int64_t{kx} * T + ky) * stride) = Complex{v.re, -v.im};
        });
  }
}

// The inverse of the spectra of a kernel's gradient, laid out as above and summed over slices: one
// channel in and one group out of the gradient [k, k, Ci, Co], which comes turned by half a circle.
void invert_kernel(const std::vector<float*>& slices, int side, int64_t n_in, int64_t n_out,
                   int64_t channel, int group, float* out) {
  const int lanes = lanes_of(n_out, group);
  const int64_t stride = n_in * groups(n_out) * VECTOR;
  const int64_t offset = (channel * groups(n_out) + group) * VECTOR;
  Complex rows[T][T], column[T];
  for (int kx = 0; kx < HALF; ++kx) {
    for (int ky = 0; ky < T; ++ky) {
      const int64_t at = offset + (int64_t{kx} * T + ky) * stride;
      Complex sum = complex(slices[0] + at);
      for (size_t s = 1; s < slices.size(); ++s) sum = add(sum, complex(slices[s] + at));
      column[ky] = sum;
    }
    // Columns 0 and T / 2 were summed at every frequency, the others at pairs of conjugates.
    const bool alone = kx == 0 || kx == T / 2;
    fft(
        [&](int ky) {
          Complex a = column[ky];
          if (alone) {
            const Complex b = column[(T - ky) % T];
            a = Complex{a.re + b.re, a.im - b.im};
          }
          return swapped(a);
        },
        [&](int n, Complex v) {
          if (n < side) rows[n][kx] = v;
        });
  }
  for (int r = 0; r < side; ++r) {
    // Swapped numbers: the conjugate of (re, im) is stored as (-im, re).
    for (int kx = HALF; kx < T; ++kx)
      rows[r][kx] = Complex{-rows[r][T - kx].re, rows[r][T - kx].im};
    fft([&](int k) { return rows[r][k]; },
        [&](int n, Complex v) {
          if (n >= side) return;
          const int64_t pixel = int64_t{side - 1 - r} * side + side - 1 - n;
          store(out + (pixel * n_in + channel) * n_out + group * V, v.im * (0.5f * SCALE), lanes);
        });
  }
}

// ---- Products of spectra ------------------------------------------------------------------------

template <int N>
using Number = std::integral_constant<int, N>;

// y[p] = sum over channels of z[p][channel] w[channel], or conj(w), for N pairs and one group out.
template <int N, bool CONJUGATE>
void product_rows(const float* z, int64_t z_pair, int64_t n_in, const float* w, int64_t w_channel,
                  float* y, int64_t y_pair) {
  const int64_t ahead = n_in * w_channel;  // the next frequency
  vec re[N], im[N];
#pragma GCC unroll 8
  for (int p = 0; p < N; ++p) re[p] = im[p] = vec{};
  for (int64_t c0 = 0; c0 < n_in; c0 += V) {
    const int64_t lanes = std::min<int64_t>(V, n_in - c0);
    const float* zg = z + c0 * 2;
    for (int64_t c = 0; c < lanes; ++c) {
      const Complex k = complex(w);
      __builtin_prefetch(w + ahead);
      __builtin_prefetch(w + ahead + V);
      w += w_channel;
#pragma GCC unroll 8
      for (int p = 0; p < N; ++p) {
        const float zr = zg[p * z_pair + c], zi = zg[p * z_pair + V + c];
        re[p] += zr * k.re;
        im[p] += zi * k.re;
        if (CONJUGATE) {
          re[p] += zi * k.im;
          im[p] -= zr * k.im;
        } else {
          re[p] -= zi * k.im;
          im[p] += zr * k.im;
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < N; ++p) complex(y + p * y_pair) = Complex{re[p], im[p]};
}

// One column: y = z w at each frequency, [T][pairs][Ci] by [T][Ci][Co]; the conjugate of w at the
// opposite frequency where that is asked for.
template <bool CONJUGATE>
void multiply(const float* z, int pairs, int64_t n_in, const float* kernel, int64_t n_out,
              float* y) {
  const int in_groups = groups(n_in), out_groups = groups(n_out);
  const int64_t z_pair = int64_t{VECTOR} * in_groups, y_pair = int64_t{VECTOR} * out_groups;
  for (int ky = 0; ky < T; ++ky) {
    const float* wk = kernel + int64_t{CONJUGATE ? (T - ky) % T : ky} * n_in * y_pair;
    const float* zk = z + ky * pairs * z_pair;
    float* yk = y + ky * pairs * y_pair;
    for (int group = 0; group < out_groups; ++group) {
      const float* w = wk + VECTOR * group;
      float* to = yk + VECTOR * group;
      int p = 0;
      const auto in_steps_of = [&](auto number) {
        for (; p + number <= pairs; p += number) {
          product_rows<number, CONJUGATE>(zk + p * z_pair, z_pair, n_in, w, y_pair, to + p * y_pair,
                                          y_pair);
        }
      };
      in_steps_of(Number<8>());
      in_steps_of(Number<4>());
      in_steps_of(Number<2>());
      in_steps_of(Number<1>());
    }
  }
}

// g[channel] += sum over pairs of conj(x[p][channel]) d[p], or its conjugate, N channels at a time.
template <int N, bool CONJUGATE>
void outer_rows(const float* x, int64_t x_pair, const float* d, int64_t d_pair, int pairs, float* g,
                int64_t g_channel) {
  vec re[N], im[N];
#pragma GCC unroll 8
  for (int c = 0; c < N; ++c) {
    const Complex before = complex(g + c * g_channel);
    re[c] = before.re;
    im[c] = before.im;
  }
  for (int p = 0; p < pairs; ++p) {
    const Complex k = complex(d + p * d_pair);
    const float* xp = x + p * x_pair;
#pragma GCC unroll 8
    for (int c = 0; c < N; ++c) {
      const float xr = xp[c], xi = xp[V + c];
      re[c] += xr * k.re;
      re[c] += xi * k.im;
      if (CONJUGATE) {
        im[c] -= xr * k.im;
        im[c] += xi * k.re;
      } else {
        im[c] += xr * k.im;
        im[c] -= xi * k.re;
      }
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < N; ++c) complex(g + c * g_channel) = Complex{re[c], im[c]};
}

// One column: g += conj(x) d at each frequency; or its conjugate, at the opposite frequency.
template <bool CONJUGATE>
void accumulate(const float* x, const float* d, int pairs, int64_t n_in, int64_t n_out, float* g) {
  const int in_groups = groups(n_in), out_groups = groups(n_out);
  const int64_t x_pair = int64_t{VECTOR} * in_groups, d_pair = int64_t{VECTOR} * out_groups;
  for (int ky = 0; ky < T; ++ky) {
    float* gk = g + int64_t{CONJUGATE ? (T - ky) % T : ky} * n_in * d_pair;
    const float* xk = x + ky * pairs * x_pair;
    const float* dk = d + ky * pairs * d_pair;
    for (int group = 0; group < out_groups; ++group) {
      int64_t c = 0;
      const auto in_steps_of = [&](auto number) {  // of no more channels than a vector has
        for (; c + number <= n_in; c += number) {
          outer_rows<number, CONJUGATE>(xk + c / V * VECTOR + c % V, x_pair, dk + VECTOR * group,
                                        d_pair, pairs, gk + c * d_pair + VECTOR * group, d_pair);
        }
      };
      in_steps_of(Number<std::min(V, 8)>());
      in_steps_of(Number<4>());
      in_steps_of(Number<1>());
    }
  }
}

// ---- The convolution and its gradients ----------------------------------------------------------

void transform_kernels(ffi::ThreadPool& pool, const float* kernel, int side, int64_t n_in,
                       int64_t n_out, float* out) {
  const int out_groups = groups(n_out);
  parallel_for(pool, n_in, [&](int64_t channel) {
    for (int group = 0; group < out_groups; ++group) {
      transform_kernel(kernel, side, n_in, n_out, channel, group, out);
    }
  });
}

// y = mask(conv(prelu(x)) + bias)
void forward(ffi::ThreadPool& pool, const Source& x, const float* kernel, const float* bias,
             const int32_t* sizes, float* y, const Tiling& t, int64_t n_out) {
  const int64_t n_in = x.channels;
  Buffer spectrum(kernel_floats(n_in, n_out));
  transform_kernels(pool, kernel, t.side, n_in, n_out, spectrum.data());
  const int in_groups = groups(n_in), out_groups = groups(n_out);
  const int64_t threads = num_threads(pool), share = (t.pairs + threads - 1) / threads;
  const int block = static_cast<int>(std::clamp<int64_t>(share, 1, PAIRS));
  parallel_for(pool, (t.pairs + block - 1) / block, [&](int64_t number) {
    const int64_t first = number * block;
    const int pairs = static_cast<int>(std::min<int64_t>(block, t.pairs - first));
    const int slots_in = pairs * in_groups, slots_out = pairs * out_groups;
    Buffer in_memory(Rows::floats(slots_in)), out_memory(Rows::floats(slots_out));
    Buffer columns(column_floats(slots_in) + column_floats(slots_out));
    float *z = columns.data(), *products = z + column_floats(slots_in);
    const Rows in{in_memory.data(), slots_in}, out{out_memory.data(), slots_out};
    for (int p = 0; p < pairs; ++p) transform_rows(x, t, first + p, true, in, p * in_groups);
    for (int column = 0; column < T; ++column) {
      const bool conjugate = column >= HALF;
      const int kx = conjugate ? T - column : column;
      const float* w = spectrum.data() + int64_t{kx} * T * n_in * out_groups * VECTOR;
      transform_column(in, column, z);
      if (conjugate) {
        multiply<true>(z, pairs, n_in, w, n_out, products);
      } else {
        multiply<false>(z, pairs, n_in, w, n_out, products);
      }
      invert_column(products, out, column, t.step);
    }
    for (int s = 0; s < slots_out; ++s) {
      const int64_t pair = first + s / out_groups;
      const int group = s % out_groups, lanes = lanes_of(n_out, group);
      const vec shift = load(bias + group * V, lanes);
      const Tile valid[2] = {{t, 2 * pair, 0, t.step, sizes}, {t, 2 * pair + 1, 0, t.step, sizes}};
      invert_rows(out, s, n_out, t, pair, group,
                  [&](int part, int row, int column, int64_t at, vec v) {
                    const bool inside = row < valid[part].bottom && column < valid[part].right;
                    store(y + at, inside ? v + shift : vec{}, lanes);
                  });
    }
  });
}

// What the gradients are written to.
struct Gradients {
  float *x, *slope, *kernel, *bias;
};

// `turned` is the kernel [k, k, Co, Ci], turned by half a circle, its channels exchanged; d is the
// gradient of y.
void backward(ffi::ThreadPool& pool, const Source& x, const float* turned, const Source& d,
              const Gradients& out, const Tiling& t) {
  const int64_t n_in = x.channels, n_out = d.channels;
  Buffer spectrum(kernel_floats(n_out, n_in));
  transform_kernels(pool, turned, t.side, n_out, n_in, spectrum.data());
  const int in_groups = groups(n_in), out_groups = groups(n_out);
  // Each slice of the blocks has sums of its own, so that these do not depend on which thread is
  // first.
  const int64_t num_slices = std::clamp<int64_t>(t.pairs / 2, 1, num_threads(pool));
  std::vector<std::unique_ptr<Buffer>> memory;
  std::vector<float*> sums;
  std::vector<double> slope_sums(num_slices), bias_sums(num_slices * n_out);
  for (int64_t s = 0; s < num_slices; ++s) {
    memory.push_back(std::make_unique<Buffer>(kernel_floats(n_in, n_out)));
    sums.push_back(memory.back()->data());
  }
  parallel_for(pool, num_slices, [&](int64_t slice) {
    std::memset(sums[slice], 0, kernel_floats(n_in, n_out) * sizeof(float));
    const int64_t begin = t.pairs * slice / num_slices, end = t.pairs * (slice + 1) / num_slices;
    const int most = static_cast<int>(std::min<int64_t>(PAIRS, end - begin));
    Buffer x_memory(Rows::floats(most * in_groups)), d_memory(Rows::floats(most * out_groups));
    const size_t x_floats = column_floats(most * in_groups);
    Buffer columns(x_floats + column_floats(most * out_groups));
    float *zx = columns.data(), *zd = zx + x_floats;
    std::vector<vec> pixels(out_groups);
    int zeroed = 0;
    for (int64_t first = begin; first < end; first += PAIRS) {
      const int pairs = static_cast<int>(std::min<int64_t>(PAIRS, end - first));
      const int slots_in = pairs * in_groups, slots_out = pairs * out_groups;
      const Rows xs{x_memory.data(), slots_in}, ds{d_memory.data(), slots_out};
      if (zeroed != pairs) {  // rows below `step` stay zero as long as the layout is the same
        std::memset(xs.data, 0, Rows::floats(slots_in) * sizeof(float));
        zeroed = pairs;
      }
      for (int p = 0; p < pairs; ++p) {
        transform_rows(x, t, first + p, false, xs, p * in_groups);
        std::fill(pixels.begin(), pixels.end(), vec{});
        transform_rows(d, t, first + p, true, ds, p * out_groups, pixels.data());
        for (int64_t c = 0; c < n_out; ++c) bias_sums[slice * n_out + c] += pixels[c / V][c % V];
      }
      for (int column = 0; column < T; ++column) {
        const bool conjugate = column >= HALF;
        const int kx = conjugate ? T - column : column;
        float* g = sums[slice] + int64_t{kx} * T * n_in * out_groups * VECTOR;
        const float* w = spectrum.data() + int64_t{kx} * T * n_out * in_groups * VECTOR;
        transform_column(xs, column, zx);
        transform_column(ds, column, zd);
        if (conjugate) {
          accumulate<true>(zx, zd, pairs, n_in, n_out, g);
          multiply<true>(zd, pairs, n_out, w, n_in, zx);
        } else {
          accumulate<false>(zx, zd, pairs, n_in, n_out, g);
          multiply<false>(zd, pairs, n_out, w, n_in, zx);
        }
        invert_column(zx, xs, column, t.step);
      }
      for (int s = 0; s < slots_in; ++s) {
        const int group = s % in_groups, lanes = lanes_of(n_in, group);
        vec sum = {};
        invert_rows(xs, s, n_in, t, first + s / in_groups, group,
                    [&](int, int, int, int64_t at, vec v) {
                      if (x.activate) {
                        const vec u = load(x.data + at, lanes);
                        sum += u >= 0.0f ? vec{} : u * v;
                        v = u >= 0.0f ? v : v * x.slope;
                      }
                      store(out.x + at, v, lanes);
                    });
        slope_sums[slice] += total(sum);
      }
    }
  });
  parallel_for(pool, n_in, [&](int64_t channel) {
    for (int group = 0; group < out_groups; ++group) {
      invert_kernel(sums, t.side, n_in, n_out, channel, group, out.kernel);
    }
  });
  for (int64_t c = 0; c < n_out; ++c) {
    double sum = 0;
    for (int64_t s = 0; s < num_slices; ++s) sum += bias_sums[s * n_out + c];
    out.bias[c] = static_cast<float>(sum);
  }
  double sum = 0;
  for (double part : slope_sums) sum += part;
  *out.slope = static_cast<float>(sum);
}

Source source(const Floats& x, const int32_t* sizes, bool activate, float slope) {
  return {x.typed_data(), x.dimensions()[3], sizes, activate, slope};
}

ffi::Error run_forward(ffi::ThreadPool pool, Floats x, Floats slope, Floats kernel, Floats bias,
                       Ints sizes, bool activate, Out y) {
  const auto shape = x.dimensions(), sides = kernel.dimensions();
  const Tiling tiling(shape[0], shape[1], shape[2], static_cast<int>(sides[0]));
  forward(pool, source(x, nullptr, activate, *slope.typed_data()), kernel.typed_data(),
          bias.typed_data(), sizes.typed_data(), y->typed_data(), tiling, sides[3]);
  return ffi::Error::Success();
}

ffi::Error run_backward(ffi::ThreadPool pool, Floats x, Floats slope, Floats turned, Ints sizes,
                        Floats d, bool activate, Out x_bar, Out slope_bar, Out kernel_bar,
                        Out bias_bar) {
  const auto shape = x.dimensions(), sides = turned.dimensions();
  const Tiling tiling(shape[0], shape[1], shape[2], static_cast<int>(sides[0]));
  const Gradients out{x_bar->typed_data(), slope_bar->typed_data(), kernel_bar->typed_data(),
                      bias_bar->typed_data()};
  backward(pool, source(x, nullptr, activate, *slope.typed_data()), turned.typed_data(),
           source(d, sizes.typed_data(), false, 1.0f), out, tiling);
  return ffi::Error::Success();
}

}  // namespace fft_convolution
}  // namespace

#endif  // CMTL_JAX_KERNELS_FFT_CONVOLUTION_H_
