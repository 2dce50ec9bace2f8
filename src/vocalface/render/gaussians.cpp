// Gaussian rasteriser for CPUs: projection, one depth sort, tiles, front-to-back blend, and its backward pass.
//
// The specification is render/reference.py. Layout:
//   * a splat reaches exactly where its alpha >= 1/255: half extents sqrt(2 ln(255 o) Sigma_ii)
//   * one radix sort by depth, then splats are scattered into tile lists in that order: no sort within a tile
//   * tiles are independent and handed to threads by a counter; gradients go to one slot a (tile, splat) entry and are
//     summed a splat in list order, so that the result does not depend on the number of threads
//   * the backward runs front to back like the forward: what lies behind a splat is the total minus the prefix
// Compile without -ffast-math: it deletes the rounding inside exp2.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr int TILE = 16;
constexpr float ALPHA_MIN = 1.0f / 255.0f, ALPHA_MAX = 0.99f, T_STOP = 1e-4f, NEAR = 0.01f, BLUR = 0.3f;

// ---------------------------------------------------------------------------------------------------- thread pool
class Pool {
 public:
  static Pool& get() {
    static Pool* pool = new Pool;  // leaked on purpose: workers may outlive static destruction
    return *pool;
  }
  void run(int threads, int jobs, const std::function<void(int, int)>& job) {
    if (threads <= 1 || jobs <= 1) {
      for (int j = 0; j < jobs; ++j) job(j, 0);
      return;
    }
    std::lock_guard<std::mutex> one(entry_);
    while ((int)workers_.size() < threads - 1) {
      int id = (int)workers_.size() + 1;
      workers_.emplace_back([this, id] { loop(id); });
      workers_.back().detach();
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job, jobs_ = jobs, next_ = 0, busy_ = threads - 1, limit_ = threads - 1, ++round_;
    }
    wake_.notify_all();
    work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
  }

 private:
  void work(int id) {
    for (int j; (j = next_.fetch_add(1)) < jobs_;) (*job_)(j, id);
  }
  void loop(int id) {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (id > limit_) continue;
      }
      work(id);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }
  std::mutex entry_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  const std::function<void(int, int)>* job_ = nullptr;
  std::atomic<int> next_{0};
  int jobs_ = 0, busy_ = 0, limit_ = 0;
  uint64_t round_ = 0;
};

// --------------------------------------------------------------------------------------------------------- a splat
struct Splat {
  float x, y;        // mean, px
  float a, b, c;     // conic (inverse covariance): a dx^2 + 2 b dx dy + c dy^2
  float opacity;
  float rx, ry;      // half extents, px
  float depth;
  int id;
};

struct View {
  float fx, fy, cx, cy;
  int width, height;
  const float* w2c;  // 4x4 row major
};

struct Projected {  // what the backward needs again
  float t[3];        // mean in the camera's frame
  float cov[3];      // 2-D covariance after the blur: xx, xy, yy
  float m[9];        // columns: rotated axes times scale, camera frame
  float j[6];        // Jacobian rows
  float tx, ty;      // clamped tangents
  bool cx, cy;       // clamped?
};

inline void rotation(const float* q, float* r, float* inv) {
  float w = q[0], x = q[1], y = q[2], z = q[3];
  float n = w * w + x * x + y * y + z * z;
  float s = n > 1e-24f ? 1.0f / std::sqrt(n) : 0.0f;
  *inv = s;
  w *= s, x *= s, y *= s, z *= s;
  r[0] = 1 - 2 * (y * y + z * z), r[1] = 2 * (x * y - w * z), r[2] = 2 * (x * z + w * y);
  r[3] = 2 * (x * y + w * z), r[4] = 1 - 2 * (x * x + z * z), r[5] = 2 * (y * z - w * x);
  r[6] = 2 * (x * z - w * y), r[7] = 2 * (y * z + w * x), r[8] = 1 - 2 * (x * x + y * y);
}

inline bool project(const View& v, const float* mean, const float* quat, const float* scale, float opacity, Projected& p,
                    Splat& s) {
  const float* w = v.w2c;
  for (int i = 0; i < 3; ++i) p.t[i] = w[4 * i] * mean[0] + w[4 * i + 1] * mean[1] + w[4 * i + 2] * mean[2] + w[4 * i + 3];
  if (!(p.t[2] > NEAR) || !(opacity >= ALPHA_MIN)) return false;
  float iz = 1.0f / p.t[2];
  float limx = 1.3f * 0.5f * v.width / v.fx, limy = 1.3f * 0.5f * v.height / v.fy;
  float tx = p.t[0] * iz, ty = p.t[1] * iz;
  p.cx = std::fabs(tx) > limx, p.cy = std::fabs(ty) > limy;
  p.tx = std::min(limx, std::max(-limx, tx)), p.ty = std::min(limy, std::max(-limy, ty));
  p.j[0] = v.fx * iz, p.j[1] = 0, p.j[2] = -v.fx * p.tx * iz;
  p.j[3] = 0, p.j[4] = v.fy * iz, p.j[5] = -v.fy * p.ty * iz;
  float r[9], inv;
  rotation(quat, r, &inv);
  for (int i = 0; i < 3; ++i)
    for (int k = 0; k < 3; ++k)
      p.m[3 * i + k] = (w[4 * i] * r[k] + w[4 * i + 1] * r[3 + k] + w[4 * i + 2] * r[6 + k]) * scale[k];
  float u[3], q[3];
  for (int k = 0; k < 3; ++k) {
    u[k] = p.j[0] * p.m[k] + p.j[2] * p.m[6 + k];
    q[k] = p.j[4] * p.m[3 + k] + p.j[5] * p.m[6 + k];
  }
  p.cov[0] = u[0] * u[0] + u[1] * u[1] + u[2] * u[2] + BLUR;
  p.cov[1] = u[0] * q[0] + u[1] * q[1] + u[2] * q[2];
  p.cov[2] = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + BLUR;
  float det = p.cov[0] * p.cov[2] - p.cov[1] * p.cov[1];
  if (!(det > 0) || !std::isfinite(det)) return false;
  float id = 1.0f / det;
  s.a = p.cov[2] * id, s.b = -p.cov[1] * id, s.c = p.cov[0] * id;
  s.x = v.fx * tx + v.cx, s.y = v.fy * ty + v.cy;
  s.opacity = opacity, s.depth = p.t[2];
  float reach = 2.0f * std::log(opacity * 255.0f) * 1.0001f + 1e-4f;
  s.rx = std::sqrt(reach * p.cov[0]), s.ry = std::sqrt(reach * p.cov[2]);
  return s.x + s.rx > 0 && s.y + s.ry > 0 && s.x - s.rx < v.width && s.y - s.ry < v.height;
}

// --------------------------------------------------------------------------------------------------- vector helpers
#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif
typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));

inline vf splat(float x) { return vf{} + x; }
inline vf select(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
inline bool any(vi m) {
#if defined(__AVX512F__)
  return __builtin_ia32_ptestmd512((__attribute__((vector_size(64))) int)m, (__attribute__((vector_size(64))) int)m, (unsigned short)-1) != 0;
#else
  int32_t acc = 0;
  for (int i = 0; i < W; ++i) acc |= m[i];
  return acc != 0;
#endif
}
inline vf exp_negative(vf x) {  // e^x for x <= 0, relative error < 3e-7
  vf y = x * 1.44269504088896341f;
  y = select(y < -126.0f, splat(-126.0f), y);
  vf magic = splat(12582912.0f);
  vf n = (y + magic) - magic;
  vf f = (y - n) * 0.693147180559945f;
  vf r = splat(1.0f / 5040.0f);
  r = r * f + 1.0f / 720.0f;
  r = r * f + 1.0f / 120.0f;
  r = r * f + 1.0f / 24.0f;
  r = r * f + 1.0f / 6.0f;
  r = r * f + 0.5f;
  r = r * f + 1.0f;
  r = r * f + 1.0f;
  vi e = (__builtin_convertvector(n, vi) + 127) << 23;
  return r * (vf)e;
}
inline float sum(vf v) {
  float s = 0;
  for (int i = 0; i < W; ++i) s += v[i];
  return s;
}

// A vector covers a block of BW x BH pixels: compact blocks waste fewer lanes than rows.
constexpr int BW = W >= 8 ? 4 : 4, BH = W / BW;
struct Offsets {
  vf x, y;
  Offsets() {
    for (int i = 0; i < W; ++i) x[i] = (i % BW) + 0.5f, y[i] = (i / BW) + 0.5f;
  }
};

struct Scene {
  View view;
  int n = 0, channels = 0, threads = 1;
  int tiles_x = 0, tiles_y = 0;
  std::vector<Splat> splats;          // visible, in depth order
  std::vector<Projected> projected;   // by Gaussian
  std::vector<int> start;             // tile -> first entry
  std::vector<int> entries;           // splat index by tile, in depth order
  std::vector<int> slot_start;        // splat -> first of its entries, in splat order
  std::vector<int> slot_of;           // entry -> slot
  std::vector<float> image, alpha;    // of the forward, padded to tiles? no: plain
};

void sort_by_depth(std::vector<Splat>& s) {
  size_t n = s.size();
  std::vector<std::pair<uint32_t, uint32_t>> a(n), b(n);
  for (size_t i = 0; i < n; ++i) {
    uint32_t u;
    std::memcpy(&u, &s[i].depth, 4);  // positive floats sort like integers
    a[i] = {u, (uint32_t)i};
  }
  for (int shift = 0; shift < 32; shift += 11) {
    uint32_t count[2049] = {0};
    for (auto& e : a) ++count[((e.first >> shift) & 2047) + 1];
    for (int i = 0; i < 2048; ++i) count[i + 1] += count[i];
    for (auto& e : a) b[count[(e.first >> shift) & 2047]++] = e;
    a.swap(b);
  }
  std::vector<Splat> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = s[a[i].second];
  s.swap(out);
}

struct Range {
  int x0, y0, x1, y1;
};
inline Range tiles_of(const Scene& sc, const Splat& s) {
  Range r;
  r.x0 = std::max(0, (int)std::floor((s.x - s.rx) / TILE)), r.y0 = std::max(0, (int)std::floor((s.y - s.ry) / TILE));
  r.x1 = std::min(sc.tiles_x, (int)std::floor((s.x + s.rx) / TILE) + 1);
  r.y1 = std::min(sc.tiles_y, (int)std::floor((s.y + s.ry) / TILE) + 1);
  return r;
}

void prepare(Scene& sc, const float* means, const float* quats, const float* scales, const float* opacities, bool keep) {
  int n = sc.n;
  sc.tiles_x = (sc.view.width + TILE - 1) / TILE, sc.tiles_y = (sc.view.height + TILE - 1) / TILE;
  if (keep) sc.projected.resize(n);
  int chunk = 2048, jobs = (n + chunk - 1) / chunk;
  std::vector<std::vector<Splat>> parts(jobs);
  Pool::get().run(sc.threads, jobs, [&](int job, int) {
    Projected local;
    parts[job].reserve(chunk);
    for (int i = job * chunk; i < std::min(n, (job + 1) * chunk); ++i) {
      Projected& p = keep ? sc.projected[i] : local;
      Splat s;
      if (project(sc.view, means + 3 * i, quats + 4 * i, scales + 3 * i, opacities[i], p, s)) {
        s.id = i;
        parts[job].push_back(s);
      }
    }
  });
  for (auto& part : parts) sc.splats.insert(sc.splats.end(), part.begin(), part.end());
  sort_by_depth(sc.splats);
  int tiles = sc.tiles_x * sc.tiles_y;
  sc.start.assign(tiles + 1, 0);
  for (auto& s : sc.splats) {
    Range r = tiles_of(sc, s);
    for (int y = r.y0; y < r.y1; ++y)
      for (int x = r.x0; x < r.x1; ++x) ++sc.start[y * sc.tiles_x + x + 1];
  }
  for (int i = 0; i < tiles; ++i) sc.start[i + 1] += sc.start[i];
  sc.entries.resize(sc.start[tiles]);
  if (keep) sc.slot_of.resize(sc.entries.size()), sc.slot_start.resize(sc.splats.size() + 1);
  std::vector<int> cursor(sc.start.begin(), sc.start.end() - 1);
  int slot = 0;
  for (size_t k = 0; k < sc.splats.size(); ++k) {
    Range r = tiles_of(sc, sc.splats[k]);
    if (keep) sc.slot_start[k] = slot;
    for (int y = r.y0; y < r.y1; ++y)
      for (int x = r.x0; x < r.x1; ++x) {
        int at = cursor[y * sc.tiles_x + x]++;
        sc.entries[at] = (int)k;
        if (keep) sc.slot_of[at] = slot++;
      }
  }
  if (keep) sc.slot_start[sc.splats.size()] = slot;
}

// One tile, forward. C channels; out is the tile's accumulators, block by block.
template <int C>
void blend(const Scene& sc, const float* colors, int tile, float* image, float* alpha) {
  static const Offsets offset;
  const int channels = sc.channels;
  constexpr int BX = TILE / BW, BY = TILE / BH, BLOCKS = BX * BY;
  vf T[BLOCKS], acc[BLOCKS][C];
  for (int b = 0; b < BLOCKS; ++b) {
    T[b] = splat(1);
    for (int c = 0; c < C; ++c) acc[b][c] = vf{};
  }
  int ox = (tile % sc.tiles_x) * TILE, oy = (tile / sc.tiles_x) * TILE;
  uint64_t alive = BLOCKS >= 64 ? ~0ull : ((1ull << BLOCKS) - 1);
  for (int e = sc.start[tile]; e < sc.start[tile + 1] && alive; ++e) {
    const Splat& s = sc.splats[sc.entries[e]];
    const float* color = colors + (size_t)s.id * channels;
    int bx0 = std::max(0, (int)std::floor((s.x - s.rx - ox) / BW)), bx1 = std::min(BX - 1, (int)std::floor((s.x + s.rx - ox) / BW));
    int by0 = std::max(0, (int)std::floor((s.y - s.ry - oy) / BH)), by1 = std::min(BY - 1, (int)std::floor((s.y + s.ry - oy) / BH));
    for (int by = by0; by <= by1; ++by) {
      vf dy = offset.y + (float)(oy + by * BH) - s.y;
      for (int bx = bx0; bx <= bx1; ++bx) {
        int b = by * BX + bx;
        if (!(alive >> b & 1)) continue;
        vf dx = offset.x + (float)(ox + bx * BW) - s.x;
        vf power = -0.5f * (s.a * dx * dx + s.c * dy * dy) - s.b * dx * dy;
        vf al = s.opacity * exp_negative(power);
        al = select(al > ALPHA_MAX, splat(ALPHA_MAX), al);
        vi on = (al >= ALPHA_MIN) & (T[b] >= T_STOP);
        if (!any(on)) continue;
        al = select(on, al, vf{});
        vf w = al * T[b];
        for (int c = 0; c < C; ++c) acc[b][c] += w * color[c];
        T[b] -= w;
        if (!any(T[b] >= T_STOP)) alive &= ~(1ull << b);
      }
    }
  }
  for (int b = 0; b < BLOCKS; ++b)
    for (int i = 0; i < W; ++i) {
      int x = ox + (b % BX) * BW + i % BW, y = oy + (b / BX) * BH + i / BW;
      if (x >= sc.view.width || y >= sc.view.height) continue;
      size_t at = (size_t)y * sc.view.width + x;
      alpha[at] = 1 - T[b][i];
      for (int c = 0; c < C; ++c) image[at * channels + c] = acc[b][c][i];
    }
}

constexpr int SLOT = 6;  // x, y, a, b, c, opacity; then the channels

template <int C>
void unblend(const Scene& sc, const float* colors, int tile, const float* image, const float* alpha, const float* g_image,
             const float* g_alpha, float* slots) {
  static const Offsets offset;
  const int channels = sc.channels, width = SLOT + C;
  constexpr int BX = TILE / BW, BY = TILE / BH, BLOCKS = BX * BY;
  vf T[BLOCKS], behind[BLOCKS], g[BLOCKS][C], ga[BLOCKS];
  int ox = (tile % sc.tiles_x) * TILE, oy = (tile / sc.tiles_x) * TILE;
  for (int b = 0; b < BLOCKS; ++b) {
    T[b] = splat(1), behind[b] = vf{}, ga[b] = vf{};
    for (int c = 0; c < C; ++c) g[b][c] = vf{};
    for (int i = 0; i < W; ++i) {
      int x = ox + (b % BX) * BW + i % BW, y = oy + (b / BX) * BH + i / BW;
      if (x >= sc.view.width || y >= sc.view.height) continue;
      size_t at = (size_t)y * sc.view.width + x;
      float total = 0;
      for (int c = 0; c < C; ++c) {
        g[b][c][i] = g_image[at * channels + c];
        total += image[at * channels + c] * g_image[at * channels + c];
      }
      behind[b][i] = total;
      // alpha = 1 - T_end: each splat's d alpha / d a_i = T_end / (1 - a_i)
      ga[b][i] = g_alpha[at] * (1 - alpha[at]);
    }
  }
  uint64_t alive = BLOCKS >= 64 ? ~0ull : ((1ull << BLOCKS) - 1);
  for (int e = sc.start[tile]; e < sc.start[tile + 1]; ++e) {
    float* out = slots + (size_t)sc.slot_of[e] * width;
    if (!alive) {
      std::memset(out, 0, sizeof(float) * width);
      continue;
    }
    const Splat& s = sc.splats[sc.entries[e]];
    const float* color = colors + (size_t)s.id * channels;
    int bx0 = std::max(0, (int)std::floor((s.x - s.rx - ox) / BW)), bx1 = std::min(BX - 1, (int)std::floor((s.x + s.rx - ox) / BW));
    int by0 = std::max(0, (int)std::floor((s.y - s.ry - oy) / BH)), by1 = std::min(BY - 1, (int)std::floor((s.y + s.ry - oy) / BH));
    vf gx{}, gy{}, gaa{}, gb{}, gc{}, go{}, gcol[C];
    for (int c = 0; c < C; ++c) gcol[c] = vf{};
    for (int by = by0; by <= by1; ++by) {
      vf dy = offset.y + (float)(oy + by * BH) - s.y;
      for (int bx = bx0; bx <= bx1; ++bx) {
        int b = by * BX + bx;
        if (!(alive >> b & 1)) continue;
        vf dx = offset.x + (float)(ox + bx * BW) - s.x;
        vf power = -0.5f * (s.a * dx * dx + s.c * dy * dy) - s.b * dx * dy;
        vf ex = exp_negative(power), raw = s.opacity * ex;
        vf al = select(raw > ALPHA_MAX, splat(ALPHA_MAX), raw);
        vi on = (al >= ALPHA_MIN) & (T[b] >= T_STOP);
        if (!any(on)) continue;
        al = select(on, al, vf{});
        vf w = al * T[b], cg{};
        for (int c = 0; c < C; ++c) {
          cg += color[c] * g[b][c];
          gcol[c] += w * g[b][c];
        }
        behind[b] -= w * cg;
        vf keep = 1.0f - al;
        vf d_al = T[b] * cg - behind[b] / keep + ga[b] / keep;
        T[b] -= w;
        d_al = select(on & (raw <= ALPHA_MAX), d_al, vf{});
        go += d_al * ex;
        vf d_power = d_al * al;
        gx += d_power * (s.a * dx + s.b * dy);
        gy += d_power * (s.c * dy + s.b * dx);
        gaa -= 0.5f * d_power * dx * dx;
        gb -= d_power * dx * dy;
        gc -= 0.5f * d_power * dy * dy;
        if (!any(T[b] >= T_STOP)) alive &= ~(1ull << b);
      }
    }
    out[0] = sum(gx), out[1] = sum(gy), out[2] = sum(gaa), out[3] = sum(gb), out[4] = sum(gc), out[5] = sum(go);
    for (int c = 0; c < C; ++c) out[SLOT + c] = sum(gcol[c]);
  }
}

// Gradient of one Gaussian from the gradient of its splat.
void unproject(const View& v, const Projected& p, const Splat& s, const float* quat, const float* scale, const float* g,
               float* g_mean, float* g_quat, float* g_scale) {
  // conic = inverse(cov): dL/dcov = -conic G conic with G symmetric [[ga, gb/2], [gb/2, gc]]
  float ga = g[2], gb = 0.5f * g[3], gc = g[4];
  float a = s.a, b = s.b, c = s.c;
  float m00 = a * ga + b * gb, m01 = a * gb + b * gc, m10 = b * ga + c * gb, m11 = b * gb + c * gc;
  float sxx = -(m00 * a + m01 * b), sxy = -(m00 * b + m01 * c), syy = -(m10 * b + m11 * c);
  float u[3], q[3];
  for (int k = 0; k < 3; ++k) {
    u[k] = p.j[0] * p.m[k] + p.j[2] * p.m[6 + k];
    q[k] = p.j[4] * p.m[3 + k] + p.j[5] * p.m[6 + k];
  }
  float gm[9], gj0 = 0, gj2 = 0, gj4 = 0, gj5 = 0;
  for (int k = 0; k < 3; ++k) {
    float gu = 2 * (sxx * u[k] + sxy * q[k]), gq = 2 * (sxy * u[k] + syy * q[k]);
    gj0 += gu * p.m[k], gj2 += gu * p.m[6 + k], gj4 += gq * p.m[3 + k], gj5 += gq * p.m[6 + k];
    gm[k] = gu * p.j[0], gm[3 + k] = gq * p.j[4], gm[6 + k] = gu * p.j[2] + gq * p.j[5];
  }
  float iz = 1.0f / p.t[2], x = p.t[0] * iz, y = p.t[1] * iz;
  float gt[3];
  gt[0] = g[0] * v.fx * iz, gt[1] = g[1] * v.fy * iz;
  gt[2] = -(g[0] * v.fx * x + g[1] * v.fy * y) * iz;
  // j0 = fx / z, j2 = -fx tx / z, j4 = fy / z, j5 = -fy ty / z, with tx = clamp(x)
  float gtx = -gj2 * v.fx * iz, gty = -gj5 * v.fy * iz;
  gt[2] += -(gj0 * p.j[0] + gj2 * p.j[2] + gj4 * p.j[4] + gj5 * p.j[5]) * iz;
  if (!p.cx) gt[0] += gtx * iz, gt[2] -= gtx * x * iz;
  if (!p.cy) gt[1] += gty * iz, gt[2] -= gty * y * iz;
  const float* w = v.w2c;
  for (int i = 0; i < 3; ++i) g_mean[i] = w[i] * gt[0] + w[4 + i] * gt[1] + w[8 + i] * gt[2];
  float r[9], inv, gr[9];
  rotation(quat, r, &inv);
  for (int k = 0; k < 3; ++k) {
    float gs = 0;
    for (int i = 0; i < 3; ++i) {  // m[:,k] = W r[:,k] scale[k]
      float gw = w[i] * gm[k] + w[4 + i] * gm[3 + k] + w[8 + i] * gm[6 + k];
      gs += gw * r[3 * i + k];
      gr[3 * i + k] = gw * scale[k];
    }
    g_scale[k] = gs;
  }
  float qw = quat[0] * inv, qx = quat[1] * inv, qy = quat[2] * inv, qz = quat[3] * inv;
  float h[4];
  h[0] = 2 * (-qz * gr[1] + qy * gr[2] + qz * gr[3] - qx * gr[5] - qy * gr[6] + qx * gr[7]);
  h[1] = 2 * (qy * gr[1] + qz * gr[2] + qy * gr[3] - 2 * qx * gr[4] - qw * gr[5] + qz * gr[6] + qw * gr[7] - 2 * qx * gr[8]);
  h[2] = 2 * (-2 * qy * gr[0] + qx * gr[1] + qw * gr[2] + qx * gr[3] + qz * gr[5] - qw * gr[6] + qz * gr[7] - 2 * qy * gr[8]);
  h[3] = 2 * (-2 * qz * gr[0] - qw * gr[1] + qx * gr[2] + qw * gr[3] - 2 * qz * gr[4] + qy * gr[5] + qx * gr[6] + qy * gr[7]);
  float dot = h[0] * qw + h[1] * qx + h[2] * qy + h[3] * qz;
  g_quat[0] = (h[0] - dot * qw) * inv, g_quat[1] = (h[1] - dot * qx) * inv;
  g_quat[2] = (h[2] - dot * qy) * inv, g_quat[3] = (h[3] - dot * qz) * inv;
}

template <int C>
void blend_all(const Scene& sc, const float* colors, float* image, float* alpha) {
  Pool::get().run(sc.threads, sc.tiles_x * sc.tiles_y, [&](int tile, int) { blend<C>(sc, colors, tile, image, alpha); });
}
template <int C>
void unblend_all(const Scene& sc, const float* colors, const float* image, const float* alpha, const float* gi,
                 const float* ga, float* slots) {
  Pool::get().run(sc.threads, sc.tiles_x * sc.tiles_y,
                  [&](int tile, int) { unblend<C>(sc, colors, tile, image, alpha, gi, ga, slots); });
}

#define DISPATCH(name, channels, ...) \
  switch (channels) {                 \
    case 1: name<1>(__VA_ARGS__); break; \
    case 2: name<2>(__VA_ARGS__); break; \
    case 3: name<3>(__VA_ARGS__); break; \
    case 4: name<4>(__VA_ARGS__); break; \
    case 5: name<5>(__VA_ARGS__); break; \
    case 6: name<6>(__VA_ARGS__); break; \
    case 7: name<7>(__VA_ARGS__); break; \
    default: name<8>(__VA_ARGS__); break; \
  }

}  // namespace

extern "C" {

// Draws n Gaussians. keep != 0 returns a scene for vf_backward, to be freed by vf_free; else returns null.
void* vf_forward(int n, int channels, int width, int height, float fx, float fy, float cx, float cy, const float* w2c,
                 const float* means, const float* quats, const float* scales, const float* opacities, const float* colors,
                 float* image, float* alpha, int threads, int keep) {
  Scene* sc = new Scene;
  float* pose = new float[16];
  std::memcpy(pose, w2c, sizeof(float) * 16);
  sc->view = {fx, fy, cx, cy, width, height, pose};
  sc->n = n, sc->channels = channels, sc->threads = threads;
  prepare(*sc, means, quats, scales, opacities, keep != 0);
  DISPATCH(blend_all, channels, *sc, colors, image, alpha);
  if (keep) return sc;
  delete[] pose;
  delete sc;
  return nullptr;
}

void vf_backward(void* scene, const float* quats, const float* scales, const float* colors, const float* image,
                 const float* alpha, const float* g_image, const float* g_alpha, float* g_means, float* g_quats,
                 float* g_scales, float* g_opacities, float* g_colors, float* g_screen) {
  const Scene& sc = *(const Scene*)scene;
  int width = SLOT + sc.channels;
  std::vector<float> slots(sc.entries.size() * (size_t)width);
  DISPATCH(unblend_all, sc.channels, sc, colors, image, alpha, g_image, g_alpha, slots.data());
  int count = (int)sc.splats.size(), chunk = 1024;
  Pool::get().run(sc.threads, (count + chunk - 1) / chunk, [&](int job, int) {
    float g[SLOT + 8];
    for (int k = job * chunk; k < std::min(count, (job + 1) * chunk); ++k) {
      const Splat& s = sc.splats[k];
      for (int j = 0; j < width; ++j) g[j] = 0;
      for (int e = sc.slot_start[k]; e < sc.slot_start[k + 1]; ++e)
        for (int j = 0; j < width; ++j) g[j] += slots[(size_t)e * width + j];
      g_opacities[s.id] = g[5];
      for (int c = 0; c < sc.channels; ++c) g_colors[(size_t)s.id * sc.channels + c] = g[SLOT + c];
      if (g_screen) g_screen[2 * s.id] += g[0], g_screen[2 * s.id + 1] += g[1];
      unproject(sc.view, sc.projected[s.id], s, quats + 4 * s.id, scales + 3 * s.id, g, g_means + 3 * s.id,
                g_quats + 4 * s.id, g_scales + 3 * s.id);
    }
  });
}

void vf_free(void* scene) {
  Scene* sc = (Scene*)scene;
  delete[] sc->view.w2c;
  delete sc;
}

}  // extern "C"
