// Gaussian rasteriser for CPUs: projection, one depth sort, tiles, front-to-back blend, and the backward pass of all.
//
// The specification is render/reference.py. How it is laid out:
//   * a splat reaches exactly where its alpha >= 1/255: half extents sqrt(2 ln(255 o) Sigma_ii)
//   * one radix sort by depth; splats are then scattered into tile lists in that order, so no list is sorted again
//   * a vector covers a compact block of pixels (4 x 4 for 16 lanes): compact blocks waste fewer lanes than rows
//   * tiles are handed to threads by a counter; gradients go to one slot a (tile, splat) pair and are summed in a
//     fixed order: no atomics, the same result for any number of threads
//   * the backward runs front to back like the forward: what lies behind a splat is the total minus the prefix
// Compile without -ffast-math: it deletes the rounding inside exp2, and alpha becomes a step function.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>
#ifndef _WIN32
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// ---------------------------------------------------------------------------------------------------------- vectors
#if defined(__AVX512F__)
constexpr int W = 16, BW = 4;
typedef __m512 vf;
typedef __mmask16 Mask;
inline Mask at_least(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline Mask both(Mask a, Mask b) { return a & b; }
inline bool any(Mask m) { return m != 0; }
inline vf masked(Mask m, vf a) { return _mm512_maskz_mov_ps(m, a); }
inline vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
inline vf root(vf a) { return _mm512_sqrt_ps(a); }
inline vf splat(float a) { return _mm512_set1_ps(a); }
inline vf reciprocal(vf a) {
  vf r = _mm512_rcp14_ps(a);
  return r * (2.0f - a * r);
}
#elif defined(__AVX2__)
constexpr int W = 8, BW = 4;
typedef __m256 vf;
typedef __m256 Mask;
inline Mask at_least(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
inline Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
inline bool any(Mask m) { return _mm256_movemask_ps(m) != 0; }
inline vf masked(Mask m, vf a) { return _mm256_and_ps(m, a); }
inline vf min(vf a, vf b) { return _mm256_min_ps(a, b); }
inline vf root(vf a) { return _mm256_sqrt_ps(a); }
inline vf splat(float a) { return _mm256_set1_ps(a); }
inline vf reciprocal(vf a) {
  vf r = _mm256_rcp_ps(a);
  return r * (2.0f - a * r);
}
#elif defined(__x86_64__)
constexpr int W = 4, BW = 2;
typedef __m128 vf;
typedef __m128 Mask;
inline Mask at_least(vf a, vf b) { return _mm_cmpge_ps(a, b); }
inline Mask both(Mask a, Mask b) { return _mm_and_ps(a, b); }
inline bool any(Mask m) { return _mm_movemask_ps(m) != 0; }
inline vf masked(Mask m, vf a) { return _mm_and_ps(m, a); }
inline vf min(vf a, vf b) { return _mm_min_ps(a, b); }
inline vf root(vf a) { return _mm_sqrt_ps(a); }
inline vf splat(float a) { return _mm_set1_ps(a); }
inline vf reciprocal(vf a) {
  vf r = _mm_rcp_ps(a);
  return r * (2.0f - a * r);
}
#else
constexpr int W = 4, BW = 2;
typedef float vf __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(16)));
inline Mask at_least(vf a, vf b) { return a >= b; }
inline Mask both(Mask a, Mask b) { return a & b; }
inline bool any(Mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
inline vf masked(Mask m, vf a) { return (vf)((Mask)a & m); }
inline vf splat(float a) { return vf{a, a, a, a}; }
inline vf min(vf a, vf b) {
  Mask less = a < b;
  return (vf)(((Mask)a & less) | ((Mask)b & ~less));
}
inline vf root(vf a) { return vf{std::sqrt(a[0]), std::sqrt(a[1]), std::sqrt(a[2]), std::sqrt(a[3])}; }
inline vf reciprocal(vf a) { return 1.0f / a; }
#endif
constexpr int BH = W / BW;  // a block is BW x BH pixels
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));

inline vf exp2_of(vf x) {  // relative error < 2e-7 for -125 < x < 125
  vf shifted = x + 12582912.0f;  // 1.5 * 2^23: rounds to the nearest integer, which is left in the low bits
  vf f = x - (shifted - 12582912.0f);
  vf r = f * 0.001327647129073739f + 0.009675540961325169f;
  r = r * f + 0.05550713092088699f;
  r = r * f + 0.24022120237350464f;
  r = r * f + 0.6931469440460205f;
  r = r * f + 1.0000001192092896f;
  return (vf)((vu)r + ((vu)shifted << 23));
}
inline vf log2_of(vf x) {  // for normal x > 0
  vi bits = (vi)x - 0x3f3504f3;  // sqrt(1/2): mantissa in [sqrt(1/2), sqrt(2))
  vf exponent = __builtin_convertvector(bits >> 23, vf);
  vf m = (vf)((bits & 0x7fffff) + 0x3f3504f3);
  vf s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  vf series = s2 * 0.1111111111f + 0.1428571429f;
  series = series * s2 + 0.2f;
  series = series * s2 + 0.3333333333f;
  series = series * s2 + 1.0f;
  return exponent + s * series * 2.885390081777927f;
}
#if defined(__x86_64__)
inline __m128 quarter(vf v) {
#if defined(__AVX512F__)
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
#elif defined(__AVX2__)
  return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
#else
  return v;
#endif
}
inline void sum4(vf a, vf b, vf c, vf d, float* out) {  // the sums of four vectors
  const __m128 qa = quarter(a), qb = quarter(b), qc = quarter(c), qd = quarter(d);
  const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(qa, qb), _mm_unpackhi_ps(qa, qb));
  const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(qc, qd), _mm_unpackhi_ps(qc, qd));
  _mm_storeu_ps(out, _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab)));
}
#else
inline void sum4(vf a, vf b, vf c, vf d, float* out) {
  const vf* v[4] = {&a, &b, &c, &d};
  for (int k = 0; k < 4; ++k) out[k] = ((*v[k])[0] + (*v[k])[2]) + ((*v[k])[1] + (*v[k])[3]);
}
#endif

// ------------------------------------------------------------------------------------------------------ thread pool
class Pool {
 public:
  static Pool& get() { return *current(); }

  // job(j) for j in [0, jobs), on at most `threads` threads, this one included.
  void run(int threads, int jobs, const std::function<void(int)>& job) {
    threads = std::min(std::min(threads, jobs), 256);
    if (threads <= 1) {
      for (int j = 0; j < jobs; ++j) job(j);
      return;
    }
    std::lock_guard<std::mutex> one(entry_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (; workers_ < threads - 1; ++workers_) std::thread([this, id = workers_] { loop(id); }).detach();
      job_ = &job, jobs_ = jobs, next_ = 0, limit_ = threads - 1, busy_ = threads - 1;
      round_.fetch_add(1);
    }
    wake_.notify_all();
    work();
    for (int i = 0; i < SPIN && busy_.load() != 0; ++i) pause();
    if (busy_.load() == 0) return;
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return busy_.load() == 0; });
  }

 private:
  static constexpr int SPIN = 1000;  // 10 to 50 us: most stages of one picture follow each other faster than that

  static Pool*& current() {
    static Pool* pool = [] {
#ifndef _WIN32
      pthread_atfork(nullptr, nullptr, [] { current() = new Pool; });  // threads do not survive a fork
#endif
      return new Pool;  // leaked on purpose: workers may outlive static destruction
    }();
    return pool;
  }
  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }
  void work() {
    for (int j; (j = next_.fetch_add(1)) < jobs_;) (*job_)(j);
  }
  void loop(int id) {
    uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < SPIN && round_.load() == seen; ++i) pause();
      bool mine;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_.load() != seen; });
        seen = round_.load();
        mine = id < limit_;
      }
      if (!mine) continue;
      work();
      if (busy_.fetch_sub(1) == 1) {
        std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_one();
      }
    }
  }
  std::mutex entry_, mutex_;
  std::condition_variable wake_, done_;
  int workers_ = 0;
  const std::function<void(int)>* job_ = nullptr;
  std::atomic<int> next_{0}, busy_{0};
  std::atomic<uint64_t> round_{0};
  int jobs_ = 0, limit_ = 0;
};

// ------------------------------------------------------------------------------------------------------- structures
constexpr int TILE = 32, MAX_CHANNELS = 8, CHUNK = 1024;
constexpr float ALPHA_MIN = 1.0f / 255.0f, ALPHA_MAX = 0.99f, T_STOP = 1e-4f, NEAR = 0.01f, BLUR = 0.3f, MARGIN = 0.15f;
constexpr float LOG2_MIN = -7.994353436858858f;  // log2(1 / 255)
constexpr float LOG2E = 1.4426950408889634f;

template <class T>
class Buffer {  // uninitialised memory that is kept for the next picture
 public:
  T* ensure(size_t n) {
    if (n > capacity_) {
      std::free(raw_);
      raw_ = nullptr, capacity_ = 0;
      size_t grown = n + n / 4;
      raw_ = std::malloc(grown * sizeof(T) + 64);
      if (!raw_) throw std::bad_alloc();
      capacity_ = grown;
    }
    return data();
  }
  T* data() const { return (T*)(((uintptr_t)raw_ + 63) & ~(uintptr_t)63); }
  T& operator[](size_t i) const { return data()[i]; }
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(raw_); }

 private:
  void* raw_ = nullptr;
  size_t capacity_ = 0;
};

struct Range {  // tiles, x1 and y1 exclusive
  uint16_t x0, y0, x1, y1;
  uint32_t size() const { return (uint32_t)(x1 - x0) * (uint32_t)(y1 - y0); }
};

struct alignas(64) Splat {  // one cache line
  float x, y;                // mean, px
  float qa, qb, qc, lo;      // log2 alpha = qa dx^2 + qb dx dy + qc dy^2 + lo
  int16_t x0, y0, x1, y1;    // pixels it may reach, inclusive
  float color[MAX_CHANNELS];
};

struct View {
  float fx, fy, cx, cy, w2c[16];
  int width, height;
  float left, right, top, bottom;  // tangents beyond which the Jacobian is held
};

struct Scene {
  View view;
  int n = 0, channels = 0, threads = 1, tiles_x = 0, tiles_y = 0;
  size_t pairs = 0;
  Buffer<Splat> splats;          // by Gaussian
  Buffer<Range> ranges;          // by Gaussian; empty: not seen
  Buffer<uint64_t> keys, spare;  // (depth bits, Gaussian), then sorted
  Buffer<int> counts;            // a chunk: how many are seen
  Buffer<uint32_t> start;        // tile -> first entry, tiles + 1
  Buffer<uint32_t> cursor;       // (part, tile) -> next entry
  Buffer<uint32_t> entries;      // Gaussian by tile, in depth order
  Buffer<uint32_t> slot;         // Gaussian -> its first slot, n + 1; only for a backward pass
  Buffer<float> slots;           // gradients of (tile, splat) pairs
};

// --------------------------------------------------------------------------------------------------------- geometry
struct Projection {  // W Gaussians at once
  vf t[3];           // mean, camera frame
  vf iz, tx, ty;     // 1 / z, held tangents
  vf q[4], inv;      // unit quaternion, 1 / length
  vf r[9], m[9];     // rotation; camera-frame axes times scale (columns)
  vf u[3], v[3];     // rows of Jacobian * m
  vf xx, xy, yy;     // 2-D covariance with the blur
};

inline vf load(const float* p, int stride, int count) {
  alignas(W * 4) float a[W] = {0};
  for (int i = 0; i < count; ++i) a[i] = p[i * stride];
  vf out;
  std::memcpy(&out, a, sizeof out);
  return out;
}
inline vf hold(vf x, float low, float high) { return min(splat(high), -min(splat(-low), -x)); }

inline void project(const View& view, const float* means, const float* quats, const float* scales, int count,
                    Projection& p) {
  const float* w = view.w2c;
  vf x = load(means, 3, count), y = load(means + 1, 3, count), z = load(means + 2, 3, count);
  for (int i = 0; i < 3; ++i) p.t[i] = w[4 * i] * x + w[4 * i + 1] * y + w[4 * i + 2] * z + w[4 * i + 3];
  p.iz = 1.0f / p.t[2];
  p.tx = hold(p.t[0] * p.iz, view.left, view.right), p.ty = hold(p.t[1] * p.iz, view.top, view.bottom);
  vf norm = splat(0);
  for (int k = 0; k < 4; ++k) p.q[k] = load(quats + k, 4, count), norm += p.q[k] * p.q[k];
  p.inv = 1.0f / root(-min(splat(-1e-24f), -norm));  // a zero quaternion turns nothing
  for (int k = 0; k < 4; ++k) p.q[k] *= p.inv;
  const vf &a = p.q[0], &b = p.q[1], &c = p.q[2], &d = p.q[3];
  p.r[0] = 1.0f - 2.0f * (c * c + d * d), p.r[1] = 2.0f * (b * c - a * d), p.r[2] = 2.0f * (b * d + a * c);
  p.r[3] = 2.0f * (b * c + a * d), p.r[4] = 1.0f - 2.0f * (b * b + d * d), p.r[5] = 2.0f * (c * d - a * b);
  p.r[6] = 2.0f * (b * d - a * c), p.r[7] = 2.0f * (c * d + a * b), p.r[8] = 1.0f - 2.0f * (b * b + c * c);
  p.xx = p.yy = splat(BLUR), p.xy = splat(0);
  for (int k = 0; k < 3; ++k) {
    vf s = load(scales + k, 3, count);
    for (int i = 0; i < 3; ++i)
      p.m[3 * i + k] = (w[4 * i] * p.r[k] + w[4 * i + 1] * p.r[3 + k] + w[4 * i + 2] * p.r[6 + k]) * s;
    p.u[k] = view.fx * p.iz * (p.m[k] - p.tx * p.m[6 + k]);
    p.v[k] = view.fy * p.iz * (p.m[3 + k] - p.ty * p.m[6 + k]);
    p.xx += p.u[k] * p.u[k], p.xy += p.u[k] * p.v[k], p.yy += p.v[k] * p.v[k];
  }
}

inline int pixel(float x, int limit) { return (int)std::min(std::max(x, -1.0f), (float)limit); }

// Projects one chunk, writes its splats and the keys of those that are seen; returns how many.
int project_chunk(Scene& sc, int begin, int end, const float* means, const float* quats, const float* scales,
                  const float* opacities, const float* colors) {
  const View& view = sc.view;
  uint64_t* keys = sc.keys.data() + begin;
  int seen = 0;
  Projection p;
  for (int at = begin; at < end; at += W) {
    int count = std::min(W, end - at);
    project(view, means + 3 * (size_t)at, quats + 4 * (size_t)at, scales + 3 * (size_t)at, count, p);
    vf det = p.xx * p.yy - p.xy * p.xy, id = 1.0f / det;
    vf lo = log2_of(load(opacities + at, 1, count));
    vf reach = (lo - LOG2_MIN) * (2.0f / LOG2E) * 1.0001f + 1e-4f;  // slack: the blend decides exactly
    vf x = view.fx * p.t[0] * p.iz + view.cx, y = view.fy * p.t[1] * p.iz + view.cy;
    vf rx = root(reach * p.xx), ry = root(reach * p.yy);
    vf qa = -0.5f * LOG2E * p.yy * id, qb = LOG2E * p.xy * id, qc = -0.5f * LOG2E * p.xx * id;
    for (int i = 0; i < count; ++i) {
      Splat& s = sc.splats[at + i];
      float z = p.t[2][i], o = opacities[at + i];
      sc.ranges[at + i] = {0, 0, 0, 0};
      // Comparisons are false for NaN: what is not finite is not seen.
      bool fine = z > NEAR && o >= ALPHA_MIN && det[i] > 0 && std::fabs(x[i]) < 1e9f && std::fabs(y[i]) < 1e9f &&
                  rx[i] < 1e9f && ry[i] < 1e9f && z < 1e30f && o < 1e30f;
      if (!fine) continue;
      const int x0 = std::max(pixel(std::ceil(x[i] - rx[i] - 0.5f), view.width), 0);
      const int x1 = std::min(pixel(std::floor(x[i] + rx[i] - 0.5f), view.width), view.width - 1);
      const int y0 = std::max(pixel(std::ceil(y[i] - ry[i] - 0.5f), view.height), 0);
      const int y1 = std::min(pixel(std::floor(y[i] + ry[i] - 0.5f), view.height), view.height - 1);
      if (x0 > x1 || y0 > y1) continue;
      s.x = x[i], s.y = y[i], s.qa = qa[i], s.qb = qb[i], s.qc = qc[i], s.lo = lo[i];
      s.x0 = (int16_t)x0, s.x1 = (int16_t)x1, s.y0 = (int16_t)y0, s.y1 = (int16_t)y1;
      sc.ranges[at + i] = {uint16_t(x0 / TILE), uint16_t(y0 / TILE), uint16_t(x1 / TILE + 1), uint16_t(y1 / TILE + 1)};
      const float* color = colors + (size_t)(at + i) * sc.channels;
      for (int c = 0; c < sc.channels; ++c) s.color[c] = color[c];
      uint32_t depth;
      std::memcpy(&depth, &z, 4);  // positive floats sort like integers
      keys[seen++] = (uint64_t)depth << 32 | (uint32_t)(at + i);
    }
  }
  return seen;
}

// From the gradient of the splats (moments of dL/dpower, see unblend) to that of W Gaussians.
void unproject(const Scene& sc, int at, int count, const float* means, const float* quats, const float* scales,
               const float* opacities, const float (*moments)[W], float* g_means, float* g_quats, float* g_scales,
               float* g_opacities, float* g_screen) {
  const View& view = sc.view;
  Projection p;
  project(view, means + 3 * (size_t)at, quats + 4 * (size_t)at, scales + 3 * (size_t)at, count, p);
  vf mom[6];
  std::memcpy(mom, moments, sizeof mom);
  vf id = 1.0f / (p.xx * p.yy - p.xy * p.xy);
  vf a = p.yy * id, b = -p.xy * id, c = p.xx * id;  // conic
  vf gx = a * mom[1] + b * mom[2], gy = c * mom[2] + b * mom[1];
  vf ga = -0.5f * mom[3], gb = -0.5f * mom[4], gc = -0.5f * mom[5];
  // conic = inverse(covariance): dL/dcov = -conic G conic, G symmetric
  vf m00 = a * ga + b * gb, m01 = a * gb + b * gc, m10 = b * ga + c * gb, m11 = b * gb + c * gc;
  vf sxx = -(m00 * a + m01 * b), sxy = -(m00 * b + m01 * c), syy = -(m10 * b + m11 * c);
  vf jx = view.fx * p.iz, jy = view.fy * p.iz;
  vf gm[9], gj0{}, gj2{}, gj4{}, gj5{};
  for (int k = 0; k < 3; ++k) {
    vf gu = 2.0f * (sxx * p.u[k] + sxy * p.v[k]), gv = 2.0f * (sxy * p.u[k] + syy * p.v[k]);
    gj0 += gu * p.m[k], gj2 += gu * p.m[6 + k], gj4 += gv * p.m[3 + k], gj5 += gv * p.m[6 + k];
    gm[k] = gu * jx, gm[3 + k] = gv * jy, gm[6 + k] = -(gu * jx * p.tx + gv * jy * p.ty);
  }
  // Jacobian: fx / z, -fx tx / z; fy / z, -fy ty / z, with tx = hold(x / z)
  vf x = p.t[0] * p.iz, y = p.t[1] * p.iz, gt[3];
  vf gtx = -gj2 * jx, gty = -gj5 * jy;
  gt[0] = gx * jx, gt[1] = gy * jy;
  gt[2] = -(gx * jx * x + gy * jy * y) - (gj0 * jx - gj2 * jx * p.tx + gj4 * jy - gj5 * jy * p.ty) * p.iz;
  Mask free_x = both(at_least(x, splat(view.left)), at_least(splat(view.right), x));
  Mask free_y = both(at_least(y, splat(view.top)), at_least(splat(view.bottom), y));
  gtx = masked(free_x, gtx) * p.iz, gty = masked(free_y, gty) * p.iz;
  gt[0] += gtx, gt[1] += gty, gt[2] -= gtx * x + gty * y;
  const float* w = view.w2c;
  vf g_mean[3], g_scale[3], gr[9];
  for (int i = 0; i < 3; ++i) g_mean[i] = w[i] * gt[0] + w[4 + i] * gt[1] + w[8 + i] * gt[2];
  for (int k = 0; k < 3; ++k) {
    vf s = load(scales + 3 * (size_t)at + k, 3, count);
    g_scale[k] = splat(0);
    for (int i = 0; i < 3; ++i) {  // m[:, k] = w2c r[:, k] scale[k]
      vf gw = w[i] * gm[k] + w[4 + i] * gm[3 + k] + w[8 + i] * gm[6 + k];
      g_scale[k] += gw * p.r[3 * i + k];
      gr[3 * i + k] = gw * s;
    }
  }
  const vf &qw = p.q[0], &qx = p.q[1], &qy = p.q[2], &qz = p.q[3];
  vf h[4];
  h[0] = 2.0f * (qz * (gr[3] - gr[1]) + qy * (gr[2] - gr[6]) + qx * (gr[7] - gr[5]));
  h[1] = 2.0f * (qy * (gr[1] + gr[3]) + qz * (gr[2] + gr[6]) + qw * (gr[7] - gr[5]) - 2.0f * qx * (gr[4] + gr[8]));
  h[2] = 2.0f * (qx * (gr[1] + gr[3]) + qz * (gr[5] + gr[7]) + qw * (gr[2] - gr[6]) - 2.0f * qy * (gr[0] + gr[8]));
  h[3] = 2.0f * (qx * (gr[2] + gr[6]) + qy * (gr[5] + gr[7]) + qw * (gr[3] - gr[1]) - 2.0f * qz * (gr[0] + gr[4]));
  vf dot = h[0] * qw + h[1] * qx + h[2] * qy + h[3] * qz;
  for (int k = 0; k < 4; ++k) h[k] = (h[k] - dot * p.q[k]) * p.inv;
  for (int i = 0; i < count; ++i) {
    size_t g = at + i;
    if (!sc.ranges[g].size()) continue;  // not seen: zero, whatever the numbers above
    for (int k = 0; k < 3; ++k) g_means[3 * g + k] = g_mean[k][i], g_scales[3 * g + k] = g_scale[k][i];
    for (int k = 0; k < 4; ++k) g_quats[4 * g + k] = h[k][i];
    g_opacities[g] = mom[0][i] / opacities[g];
    if (g_screen) g_screen[2 * g] += gx[i], g_screen[2 * g + 1] += gy[i];
  }
}

// ------------------------------------------------------------------------------------------------- sorting, tiles
// Least significant digit first, by the depth alone (stable: equal depths keep the order of the input).
void sort_by_depth(Scene& sc, size_t n) {
  uint64_t *a = sc.keys.data(), *b = sc.spare.ensure(n);
  uint32_t low = ~0u, high = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t key = (uint32_t)(a[i] >> 32);
    low = std::min(low, key), high = std::max(high, key);
  }
  int bits = 0;
  while (bits < 32 && n && ((high - low) >> bits)) ++bits;
  int passes = (bits + 11) / 12, width = passes ? (bits + passes - 1) / passes : 0;
  std::vector<uint32_t> counts((size_t)passes << width);
  uint32_t mask = (1u << width) - 1;
  for (size_t i = 0; i < n; ++i) {
    uint32_t key = (uint32_t)(a[i] >> 32) - low;
    for (int pass = 0; pass < passes; ++pass) ++counts[((size_t)pass << width) + (key >> (pass * width) & mask)];
  }
  for (int pass = 0; pass < passes; ++pass) {
    uint32_t *count = &counts[(size_t)pass << width], total = 0;
    for (uint32_t d = 0; d <= mask; ++d) {
      uint32_t c = count[d];
      count[d] = total, total += c;
    }
    for (size_t i = 0; i < n; ++i) b[count[((uint32_t)(a[i] >> 32) - low) >> (pass * width) & mask]++] = a[i];
    std::swap(a, b);
  }
  if (a != sc.keys.data()) std::memcpy(sc.keys.data(), a, n * sizeof *a);
}

void fill_tiles(Scene& sc, size_t seen) {
  const int tiles = sc.tiles_x * sc.tiles_y, parts = std::max(1, std::min(sc.threads, (int)(seen / 4096)));
  auto part = [&](int j) { return seen * j / parts; };
  uint32_t *cursor = sc.cursor.ensure((size_t)tiles * parts), *start = sc.start.ensure(tiles + 1);
  const uint64_t* keys = sc.keys.data();
  auto each = [&](int j, auto&& f) {
    uint32_t* mine = cursor + (size_t)j * tiles;
    for (size_t k = part(j), end = part(j + 1); k < end; ++k) {
      uint32_t id = (uint32_t)keys[k];
      const Range r = sc.ranges[id];
      for (int y = r.y0; y < r.y1; ++y)
        for (int x = r.x0; x < r.x1; ++x) f(mine[y * sc.tiles_x + x], id);
    }
  };
  Pool::get().run(sc.threads, parts, [&](int j) {
    std::fill_n(cursor + (size_t)j * tiles, tiles, 0);
    each(j, [](uint32_t& count, uint32_t) { ++count; });
  });
  size_t total = 0;
  for (int t = 0; t < tiles; ++t) {
    start[t] = (uint32_t)total;
    for (int j = 0; j < parts; ++j) {
      uint32_t count = cursor[(size_t)j * tiles + t];
      cursor[(size_t)j * tiles + t] = (uint32_t)total;
      total += count;
    }
    if (total > 0xffffffffu) throw std::bad_alloc();
  }
  start[tiles] = (uint32_t)total, sc.pairs = total;
  uint32_t* entries = sc.entries.ensure(total);
  Pool::get().run(sc.threads, parts, [&](int j) { each(j, [&](uint32_t& at, uint32_t id) { entries[at++] = id; }); });
}

void prepare(Scene& sc, const float* means, const float* quats, const float* scales, const float* opacities,
             const float* colors, bool keep) {
  const int n = sc.n, chunks = (n + CHUNK - 1) / CHUNK;
  sc.tiles_x = (sc.view.width + TILE - 1) / TILE, sc.tiles_y = (sc.view.height + TILE - 1) / TILE;
  sc.splats.ensure(n), sc.ranges.ensure(n), sc.keys.ensure(n), sc.counts.ensure(chunks);
  Pool::get().run(sc.threads, chunks, [&](int j) {
    sc.counts[j] = project_chunk(sc, j * CHUNK, std::min(n, (j + 1) * CHUNK), means, quats, scales, opacities, colors);
  });
  size_t seen = 0;
  for (int j = 0; j < chunks; ++j) {
    std::memmove(sc.keys.data() + seen, sc.keys.data() + (size_t)j * CHUNK, sc.counts[j] * sizeof(uint64_t));
    seen += sc.counts[j];
  }
  sort_by_depth(sc, seen);
  fill_tiles(sc, seen);
  if (!keep) return;
  uint32_t *slot = sc.slot.ensure(n + 1), at = 0;
  for (int i = 0; i < n; ++i) {
    slot[i] = at;
    at += sc.ranges[i].size();
  }
  slot[n] = at;
}

// ---------------------------------------------------------------------------------------------------------- blending
constexpr int BX = TILE / BW, BY = TILE / BH, BLOCKS = BX * BY;

struct Offsets {  // pixel centres of a block
  vf x, y;
  Offsets() {
    for (int i = 0; i < W; ++i) x[i] = i % BW + 0.5f, y[i] = i / BW + 0.5f;
  }
};

struct Tile {
  int ox, oy, width, height;  // px; the part within the image
  Tile(const Scene& sc, int tile)
      : ox(tile % sc.tiles_x * TILE), oy(tile / sc.tiles_x * TILE), width(std::min(TILE, sc.view.width - ox)),
        height(std::min(TILE, sc.view.height - oy)) {}
};

struct Blocks {  // those of a tile that a splat may reach, inclusive
  int x0, y0, x1, y1;
  Blocks(const Splat& s, const Tile& t)
      : x0(std::max(s.x0 - t.ox, 0) / BW), y0(std::max(s.y0 - t.oy, 0) / BH), x1(std::min(s.x1 - t.ox, TILE - 1) / BW),
        y1(std::min(s.y1 - t.oy, TILE - 1) / BH) {}
};

inline bool all_opaque(const vf* T) {
  for (int b = 0; b < BLOCKS; ++b)
    if (any(at_least(T[b], splat(T_STOP)))) return false;
  return true;
}

// C = 0 stands for any number of channels. Image and alpha of one tile.
template <int C>
void blend(const Scene& sc, int tile, float* image, float* alpha) {
  static const Offsets offset;
  const int channels = C ? C : sc.channels;
  constexpr int MOST = C ? C : MAX_CHANNELS;
  const Tile t(sc, tile);
  const uint32_t begin = sc.start[tile], end = sc.start[tile + 1];
  if (begin == end) {
    for (int y = 0; y < t.height; ++y) {
      size_t at = (size_t)(t.oy + y) * sc.view.width + t.ox;
      std::fill_n(alpha + at, t.width, 0.0f);
      std::fill_n(image + at * channels, t.width * channels, 0.0f);
    }
    return;
  }
  vf T[BLOCKS], acc[BLOCKS][MOST];
  for (int b = 0; b < BLOCKS; ++b) {
    T[b] = splat(1);
    for (int c = 0; c < channels; ++c) acc[b][c] = splat(0);
  }
  const Splat* splats = sc.splats.data();
  const uint32_t* entries = sc.entries.data();
  const vf smallest = splat(LOG2_MIN), stop = splat(T_STOP), most = splat(ALPHA_MAX);
  for (uint32_t e = begin; e < end; ++e) {
    if ((e - begin) % 32 == 31 && all_opaque(T)) break;
    if (e + 4 < end) __builtin_prefetch(&splats[entries[e + 4]]);
    const Splat& s = splats[entries[e]];
    const Blocks r(s, t);
    for (int by = r.y0; by <= r.y1; ++by) {
      const vf dy = offset.y + ((float)(t.oy + by * BH) - s.y), row = s.qc * dy * dy + s.lo, slope = s.qb * dy;
      for (int bx = r.x0; bx <= r.x1; ++bx) {
        const int b = by * BX + bx;
        const vf dx = offset.x + ((float)(t.ox + bx * BW) - s.x), power = (s.qa * dx + slope) * dx + row;
        const vf through = T[b];
        const Mask on = both(at_least(power, smallest), at_least(through, stop));
        const vf weight = masked(on, min(exp2_of(power), most)) * through;
        T[b] = through - weight;
        for (int c = 0; c < channels; ++c) acc[b][c] += weight * s.color[c];
      }
    }
  }
  for (int y = 0; y < t.height; ++y) {
    size_t at = (size_t)(t.oy + y) * sc.view.width + t.ox;
    for (int x = 0; x < t.width; ++x, ++at) {
      const int b = y / BH * BX + x / BW, i = y % BH * BW + x % BW;
      alpha[at] = 1.0f - T[b][i];
      for (int c = 0; c < channels; ++c) image[at * channels + c] = acc[b][c][i];
    }
  }
}

constexpr int MOMENTS = 6;  // of dL/dpower: 1, dx, dy, dx^2, dx dy, dy^2; the colours' gradient follows in a slot
inline int slot_width(int channels) { return channels <= 2 ? 8 : channels <= 6 ? 12 : 16; }

template <int C>
void unblend(const Scene& sc, int tile, const float* image, const float* alpha, const float* g_image,
             const float* g_alpha, float* slots) {
  static const Offsets offset;
  const int channels = C ? C : sc.channels, width = slot_width(channels);
  constexpr int MOST = C ? C : MAX_CHANNELS;
  const Tile t(sc, tile);
  const uint32_t begin = sc.start[tile], end = sc.start[tile + 1];
  if (begin == end) return;
  // Alpha is one more channel, of colour 1. behind = sum of weight * (colour . gradient) of the splats yet to come.
  vf T[BLOCKS], behind[BLOCKS], ga[BLOCKS], g[BLOCKS][MOST];
  for (int b = 0; b < BLOCKS; ++b) {
    T[b] = splat(1), behind[b] = ga[b] = splat(0);
    for (int c = 0; c < channels; ++c) g[b][c] = splat(0);
  }
  for (int y = 0; y < t.height; ++y) {
    size_t at = (size_t)(t.oy + y) * sc.view.width + t.ox;
    for (int x = 0; x < t.width; ++x, ++at) {
      const int b = y / BH * BX + x / BW, i = y % BH * BW + x % BW;
      float total = alpha[at] * g_alpha[at];
      for (int c = 0; c < channels; ++c) {
        ((float*)&g[b][c])[i] = g_image[at * channels + c];
        total += image[at * channels + c] * g_image[at * channels + c];
      }
      ((float*)&behind[b])[i] = total, ((float*)&ga[b])[i] = g_alpha[at];
    }
  }
  const Splat* splats = sc.splats.data();
  const uint32_t* entries = sc.entries.data();
  const vf smallest = splat(LOG2_MIN), stop = splat(T_STOP), most = splat(ALPHA_MAX);
  bool opaque = false;
  for (uint32_t e = begin; e < end; ++e) {
    const uint32_t id = entries[e];
    if (e + 4 < end) __builtin_prefetch(&splats[entries[e + 4]]);
    const Splat& s = splats[id];
    const Range range = sc.ranges[id];
    const int tx = tile % sc.tiles_x, ty = tile / sc.tiles_x;
    float* out = slots + (size_t)(sc.slot[id] + (ty - range.y0) * (range.x1 - range.x0) + (tx - range.x0)) * width;
    if (opaque || ((e - begin) % 32 == 31 && (opaque = all_opaque(T)))) {
      std::fill_n(out, width, 0.0f);
      continue;
    }
    const Blocks r(s, t);
    vf m0{}, mx{}, my{}, mxx{}, mxy{}, myy{}, gc[MAX_CHANNELS + 2] = {};
    for (int by = r.y0; by <= r.y1; ++by) {
      const vf dy = offset.y + ((float)(t.oy + by * BH) - s.y), row = s.qc * dy * dy + s.lo, slope = s.qb * dy;
      for (int bx = r.x0; bx <= r.x1; ++bx) {
        const int b = by * BX + bx;
        const vf dx = offset.x + ((float)(t.ox + bx * BW) - s.x), power = (s.qa * dx + slope) * dx + row;
        const vf through = T[b];
        const Mask on = both(at_least(power, smallest), at_least(through, stop));
        const vf raw = exp2_of(power), a = masked(on, min(raw, most)), weight = a * through;
        T[b] = through - weight;
        vf shade = ga[b];
        for (int c = 0; c < channels; ++c) {
          shade += s.color[c] * g[b][c];
          gc[c] += weight * g[b][c];
        }
        const vf rest = behind[b] - weight * shade;
        behind[b] = rest;
        // dL/dpower = alpha dL/dalpha; none where alpha is held at its most
        const vf d = masked(both(on, at_least(most, raw)), weight * shade - a * rest * reciprocal(1.0f - a));
        const vf ddx = d * dx, ddy = d * dy;
        m0 += d, mx += ddx, my += ddy;
        mxx += ddx * dx, mxy += ddx * dy, myy += ddy * dy;
      }
    }
    sum4(m0, mx, my, mxx, out);
    sum4(mxy, myy, gc[0], gc[1], out + 4);
    for (int c = 2; c < channels; c += 4) sum4(gc[c], gc[c + 1], gc[c + 2], gc[c + 3], out + MOMENTS + c);
  }
}

template <int C>
void blend_all(const Scene& sc, float* image, float* alpha) {
  Pool::get().run(sc.threads, sc.tiles_x * sc.tiles_y, [&](int tile) { blend<C>(sc, tile, image, alpha); });
}
template <int C>
void unblend_all(const Scene& sc, const float* image, const float* alpha, const float* gi, const float* ga,
                 float* slots) {
  Pool::get().run(sc.threads, sc.tiles_x * sc.tiles_y,
                  [&](int tile) { unblend<C>(sc, tile, image, alpha, gi, ga, slots); });
}

// ---------------------------------------------------------------------------------------------------- scenes at rest
std::mutex resting_mutex;
std::vector<std::unique_ptr<Scene>>& resting() {
  static auto* scenes = new std::vector<std::unique_ptr<Scene>>;
  return *scenes;
}
std::unique_ptr<Scene> take_scene() {
  std::lock_guard<std::mutex> lock(resting_mutex);
  if (resting().empty()) return std::unique_ptr<Scene>(new Scene);
  auto scene = std::move(resting().back());
  resting().pop_back();
  return scene;
}
void rest(std::unique_ptr<Scene> scene) {
  std::lock_guard<std::mutex> lock(resting_mutex);
  if (resting().size() < 4) resting().push_back(std::move(scene));
}

}  // namespace

extern "C" {

// Draws n Gaussians (see render/cpu.py for the shapes). camera: fx, fy, cx, cy, then world-to-camera 4x4 by rows.
// With `kept`, a scene for vf_backward is left there, to be freed by vf_free. Returns 0, or 1 when memory or a thread
// is not to be had.
int vf_forward(int n, int channels, int width, int height, const float* camera, const float* means, const float* quats,
               const float* scales, const float* opacities, const float* colors, float* image, float* alpha,
               int threads, void** kept) try {
  auto scene = take_scene();
  View& v = scene->view;
  v.fx = camera[0], v.fy = camera[1], v.cx = camera[2], v.cy = camera[3], v.width = width, v.height = height;
  std::memcpy(v.w2c, camera + 4, sizeof v.w2c);
  v.left = -v.cx / v.fx - MARGIN, v.right = (width - v.cx) / v.fx + MARGIN;
  v.top = -v.cy / v.fy - MARGIN, v.bottom = (height - v.cy) / v.fy + MARGIN;
  scene->n = n, scene->channels = channels, scene->threads = threads;
  prepare(*scene, means, quats, scales, opacities, colors, kept != nullptr);
  switch (channels) {
    case 3: blend_all<3>(*scene, image, alpha); break;
    case 4: blend_all<4>(*scene, image, alpha); break;
    case 5: blend_all<5>(*scene, image, alpha); break;
    default: blend_all<0>(*scene, image, alpha);
  }
  if (kept)
    *kept = scene.release();
  else
    rest(std::move(scene));
  return 0;
} catch (...) {
  return 1;
}

// Gradients of what vf_forward drew; the g_ arrays (but g_screen, [n, 2] or null, which is added to) come zeroed.
int vf_backward(void* kept, const float* means, const float* quats, const float* scales, const float* opacities,
                const float* image, const float* alpha, const float* g_image, const float* g_alpha, float* g_means,
                float* g_quats, float* g_scales, float* g_opacities, float* g_colors, float* g_screen) try {
  Scene& sc = *(Scene*)kept;
  const int width = slot_width(sc.channels);
  float* slots = sc.slots.ensure(sc.pairs * width);
  switch (sc.channels) {
    case 3: unblend_all<3>(sc, image, alpha, g_image, g_alpha, slots); break;
    case 4: unblend_all<4>(sc, image, alpha, g_image, g_alpha, slots); break;
    case 5: unblend_all<5>(sc, image, alpha, g_image, g_alpha, slots); break;
    default: unblend_all<0>(sc, image, alpha, g_image, g_alpha, slots);
  }
  Pool::get().run(sc.threads, (sc.n + CHUNK - 1) / CHUNK, [&](int j) {
    for (int at = j * CHUNK, end = std::min(sc.n, (j + 1) * CHUNK); at < end; at += W) {
      const int count = std::min(W, end - at);
      alignas(64) float moments[MOMENTS][W] = {{0}};
      for (int i = 0; i < count; ++i) {
        float g[16] = {0};
        for (uint32_t s = sc.slot[at + i]; s < sc.slot[at + i + 1]; ++s)
          for (int k = 0; k < width; ++k) g[k] += slots[(size_t)s * width + k];
        for (int k = 0; k < MOMENTS; ++k) moments[k][i] = g[k];
        for (int c = 0; c < sc.channels; ++c) g_colors[(size_t)(at + i) * sc.channels + c] = g[MOMENTS + c];
      }
      unproject(sc, at, count, means, quats, scales, opacities, moments, g_means, g_quats, g_scales, g_opacities,
                g_screen);
    }
  });
  return 0;
} catch (...) {
  return 1;
}

void vf_free(void* kept) {
  if (kept) rest(std::unique_ptr<Scene>((Scene*)kept));
}

// HM-Talker's eq. 10 to 8 bits: I = F + (1 - A_f)(M + (1 - A_m) B). mouth and mouth_alpha may be null.
int vf_composite_u8(int64_t pixels, const float* face, const float* face_alpha, const float* mouth,
                    const float* mouth_alpha, const uint8_t* behind, uint8_t* out, int threads) try {
  constexpr int64_t PART = 16384;
  Pool::get().run(threads, (int)((pixels + PART - 1) / PART), [&](int j) {
    for (int64_t p = j * PART, end = std::min(pixels, p + PART); p < end; ++p) {
      const float through = 1.0f - face_alpha[p], far = mouth ? 1.0f - mouth_alpha[p] : 1.0f;
      for (int c = 0; c < 3; ++c) {
        float value = far * behind[3 * p + c];
        if (mouth) value += 255.0f * mouth[3 * p + c];
        value = through * value + 255.0f * face[3 * p + c] + 0.5f;
        out[3 * p + c] = (uint8_t)std::min(std::max(value, 0.0f), 255.0f);
      }
    }
  });
  return 0;
} catch (...) {
  return 1;
}

}  // extern "C"
