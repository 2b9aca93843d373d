// Vectors of V floats, the widest that this processor has.

#ifndef CMTL_JAX_KERNELS_VECTORS_H_
#define CMTL_JAX_KERNELS_VECTORS_H_

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int V = 16;
#elif defined(__AVX__)
constexpr int V = 8;
#else
constexpr int V = 4;
#endif

typedef float vec __attribute__((vector_size(V * sizeof(float))));
typedef float unaligned_vec
    __attribute__((vector_size(V * sizeof(float)), aligned(sizeof(float)), may_alias));

ALWAYS_INLINE vec load(const float* p, int lanes) {
  if (lanes >= V) return *reinterpret_cast<const unaligned_vec*>(p);
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes) - 1), p);
#else
  vec v = {};
  for (int i = 0; i < lanes; ++i) v[i] = p[i];
  return v;
#endif
}

ALWAYS_INLINE void store(float* p, vec v, int lanes) {
  if (lanes >= V) {
    *reinterpret_cast<unaligned_vec*>(p) = v;
    return;
  }
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << lanes) - 1), (__m512)v);
#else
  for (int i = 0; i < lanes; ++i) p[i] = v[i];
#endif
}

ALWAYS_INLINE void prefetch(const float* p, int64_t floats) {
  for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(p + i);
}

// Groups of V channels.
inline int groups(int64_t channels) { return static_cast<int>((channels + V - 1) / V); }

// How many of a group's channels there are.
inline int lanes_of(int64_t channels, int group) {
  const int64_t left = channels - int64_t{group} * V;
  return static_cast<int>(left < V ? left : V);
}

// Parametric ReLU: v where it is at least 0, else slope v.
ALWAYS_INLINE vec prelu(vec v, float slope) { return v >= 0.0f ? v : v * slope; }

inline double total(vec v) {
  double sum = 0;
  for (int i = 0; i < V; ++i) sum += v[i];
  return sum;
}

}  // namespace

#endif  // CMTL_JAX_KERNELS_VECTORS_H_
