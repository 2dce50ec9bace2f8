// Textured triangles to pixels through a z-buffer, with supersampling. The specification is mesh_reference.py.
//
// Samples lie on a regular s x s grid in each pixel. Threads take bands of pixel rows; a band first finds for every
// sample the nearest triangle (depth, barycentrics), then shades each visible sample once and averages.
// No -ffast-math; all shared values are computed in float32 by the same steps as in the reference.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr float kNear = 0.01f;
constexpr float kSlack = -1e-5f;  // neighbours overlap by this, lest rounding leave a gap between them
constexpr int kBandRows = 16;  // pixel rows a band

constexpr int kLanes = 8;  // samples of a row that are tested at once
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t Flags __attribute__((vector_size(4 * kLanes)));
const Lanes kCount = {0, 1, 2, 3, 4, 5, 6, 7};
const Flags kBits = {1, 2, 4, 8, 16, 32, 64, 128};

struct Mesh {
    const float* xyz;        // [V,3] camera space, metres
    const int32_t* faces;    // [F,3]
    const uint8_t* labels;   // [F]
    const float* light;      // [V,3]
    const float* gloss;      // [V,3] or null
    const float* uv;         // [V,2] texels, or null
    const uint8_t* cutout;   // [F] 1: the texture's alpha cuts holes; or null
    int vertices, count;
};

struct Texture {
    const uint8_t* rgba;  // [h,w,4], RGB as the square root of linear values
    int height, width;
};

struct View {
    float fx, fy, cx, cy;
    int width, height, samples;
    uint32_t keep;  // bit l set: samples of label l count in colour and alpha
    int encode;     // 1: output sqrt(colour), clipped to [0,1]
};

struct Output {
    float* color;     // [H,W,3] premultiplied
    float* alpha;     // [H,W]
    uint8_t* labels;  // [H,W]
    float* depth;     // [H,W] metres, 0 where nothing is
};

struct Projected {
    float x, y, inverse_z;
};

struct Hit {
    int face;
    float a, b;  // perspective-correct weights of the second and third vertex
};

inline void texel(const Texture& t, float u, float v, float out[4]) {
    u = std::min(std::max(u - 0.5f, 0.0f), float(t.width - 1));
    v = std::min(std::max(v - 0.5f, 0.0f), float(t.height - 1));
    const int x0 = int(u), y0 = int(v);
    const int x1 = std::min(x0 + 1, t.width - 1), y1 = std::min(y0 + 1, t.height - 1);
    const float fu = u - float(x0), fv = v - float(y0);
    const uint8_t* p00 = t.rgba + 4 * (size_t(y0) * t.width + x0);
    const uint8_t* p01 = t.rgba + 4 * (size_t(y0) * t.width + x1);
    const uint8_t* p10 = t.rgba + 4 * (size_t(y1) * t.width + x0);
    const uint8_t* p11 = t.rgba + 4 * (size_t(y1) * t.width + x1);
    for (int c = 0; c < 4; ++c) {
        const float top = float(p00[c]) + fu * (float(p01[c]) - float(p00[c]));
        const float bottom = float(p10[c]) + fu * (float(p11[c]) - float(p10[c]));
        out[c] = (top + fv * (bottom - top)) * (1.0f / 255.0f);
    }
}

// Whether the nearest texel is there.
inline bool solid(const Texture& t, float u, float v) {
    const int x = int(std::min(std::max(u, 0.0f), float(t.width - 1)));
    const int y = int(std::min(std::max(v, 0.0f), float(t.height - 1)));
    return t.rgba[4 * (size_t(y) * t.width + x) + 3] >= 128;
}

inline float mix(const float* values, int stride, int channel, const int32_t* f, const Hit& h) {
    const float first = values[stride * f[0] + channel];
    return first + h.a * (values[stride * f[1] + channel] - first) + h.b * (values[stride * f[2] + channel] - first);
}

void draw_band(const Mesh& m, const Texture* t, const View& v, const std::vector<Projected>& points,
               const int32_t* listed, int listed_count, int first_row, int rows, std::vector<float>& nearest,
               std::vector<Hit>& hits, const Output& out) {
    const int s = v.samples, width = v.width * s, height = rows * s;
    const float step = 1.0f / float(s);
    std::fill(nearest.begin(), nearest.end(), 0.0f);  // inverse depth: larger is nearer
    std::fill(hits.begin(), hits.end(), Hit{-1, 0, 0});
    for (int i = 0; i < listed_count; ++i) {
        const int face = listed[i];
        const int32_t* f = m.faces + 3 * face;
        const Projected &p0 = points[f[0]], &p1 = points[f[1]], &p2 = points[f[2]];
        const float area = (p1.x - p0.x) * (p2.y - p0.y) - (p1.y - p0.y) * (p2.x - p0.x);
        if (area == 0.0f) continue;
        const float inverse_area = 1.0f / area;
        const Projected* corner[4] = {&p0, &p1, &p2, &p0};
        float slope[3];
        for (int k = 0; k < 3; ++k)
            slope[k] = (corner[k + 1]->x - corner[k]->x) / (corner[k + 1]->y - corner[k]->y);  // unused where level
        const bool cut = m.cutout && m.cutout[face];
        const float low_x = std::min({p0.x, p1.x, p2.x}), high_x = std::max({p0.x, p1.x, p2.x});
        const float low_y = std::min({p0.y, p1.y, p2.y}), high_y = std::max({p0.y, p1.y, p2.y});
        const int x_begin = int(std::max(0.0f, std::ceil(low_x * s - 0.5f)));
        const int x_end = int(std::min(float(width - 1), std::floor(high_x * s - 0.5f)));
        const float top = float(first_row);
        const int y_begin = int(std::max(0.0f, std::ceil((low_y - top) * s - 0.5f)));
        const int y_end = int(std::min(float(height - 1), std::floor((high_y - top) * s - 0.5f)));
        for (int y = y_begin; y <= y_end; ++y) {
            const float py = top + (float(y) + 0.5f) * step;
            // Where the row can be inside: between the edges' crossings, with a sample to spare on either side.
            float lowest = 1e9f, highest = -1e9f;
            for (int k = 0; k < 3; ++k) {
                if ((corner[k]->y > py) == (corner[k + 1]->y > py)) continue;
                const float x = (corner[k]->x + (py - corner[k]->y) * slope[k]) * s - 0.5f;
                lowest = std::min(lowest, x), highest = std::max(highest, x);
            }
            const int from_x = std::max(x_begin, int(std::max(lowest, -1.0f)) - 1);
            const int to_x = std::min(x_end, int(std::min(highest, float(width))) + 2);
            const float across = p2.y - p0.y, along = p1.y - p0.y, dy = py - p0.y;
            for (int x = from_x; x <= to_x; x += kLanes) {
                const size_t row = size_t(y) * width + x;
                const Lanes px = (kCount + (float(x) + 0.5f)) * step - p0.x;
                const Lanes w1 = (px * across - dy * (p2.x - p0.x)) * inverse_area;
                const Lanes w2 = ((p1.x - p0.x) * dy - along * px) * inverse_area;
                const Lanes w0 = 1.0f - w1 - w2;
                const Lanes inverse_z = w0 * p0.inverse_z + w1 * p1.inverse_z + w2 * p2.inverse_z;
                Lanes before;
                std::memcpy(&before, nearest.data() + row, sizeof before);
                const auto wins = (w0 >= kSlack) & (w1 >= kSlack) & (w2 >= kSlack) & (inverse_z > before) & kBits;
                unsigned bits = 0;
                for (int k = 0; k < kLanes; ++k) bits |= unsigned(wins[k]);
                if (to_x - x + 1 < kLanes) bits &= (1u << (to_x - x + 1)) - 1u;
                for (; bits; bits &= bits - 1) {
                    const int k = __builtin_ctz(bits);
                    const float z = 1.0f / inverse_z[k];
                    const Hit hit{face, w1[k] * p1.inverse_z * z, w2[k] * p2.inverse_z * z};
                    if (cut && !solid(*t, mix(m.uv, 2, 0, f, hit), mix(m.uv, 2, 1, f, hit))) continue;
                    nearest[row + k] = inverse_z[k];
                    hits[row + k] = hit;
                }
            }
        }
    }
    const float share = 1.0f / float(s * s);
    for (int y = 0; y < rows; ++y) {
        for (int x = 0; x < v.width; ++x) {
            float color[3] = {0, 0, 0}, alpha = 0, deepest = 0;
            int counts[32] = {0};
            for (int k = 0; k < s * s; ++k) {
                const size_t at = size_t(y * s + k / s) * width + x * s + k % s;
                const Hit& hit = hits[at];
                if (hit.face < 0) {
                    ++counts[0];
                    continue;
                }
                deepest = std::max(deepest, nearest[at]);
                const int label = m.labels[hit.face] & 31;  // labels are below 32
                ++counts[label];
                if (!(v.keep >> label & 1u)) continue;
                const int32_t* f = m.faces + 3 * hit.face;
                float rgba[4] = {1, 1, 1, 1};
                if (t) texel(*t, mix(m.uv, 2, 0, f, hit), mix(m.uv, 2, 1, f, hit), rgba);
                for (int c = 0; c < 3; ++c) {
                    float value = rgba[c] * rgba[c] * mix(m.light, 3, c, f, hit);
                    if (m.gloss) value += mix(m.gloss, 3, c, f, hit);
                    if (v.encode) value = std::sqrt(std::min(std::max(value, 0.0f), 1.0f));
                    color[c] += value;
                }
                alpha += 1.0f;
            }
            const size_t at = size_t(first_row + y) * v.width + x;
            for (int c = 0; c < 3; ++c) out.color[3 * at + c] = color[c] * share;
            out.alpha[at] = alpha * share;
            out.depth[at] = deepest > 0 ? 1.0f / deepest : 0.0f;
            int best = 0;
            if (counts[0] < s * s)
                for (int l = 1; l < 32; ++l)
                    if (counts[l] > counts[best]) best = l;
            out.labels[at] = uint8_t(best);
        }
    }
}

}  // namespace

extern "C" {

// 0 on success, 1 on a face index out of range.
int vf_mesh_render(const float* xyz, int vertices, const int32_t* faces, const uint8_t* labels, int count,
                   const float* light, const float* gloss, const float* uv, const uint8_t* cutout,
                   const uint8_t* texture, int texture_height,
                   int texture_width, float fx, float fy, float cx, float cy, int width, int height, int samples,
                   uint32_t keep, int encode, int threads, float* color, float* alpha, uint8_t* label_map,
                   float* depth) {
    const Mesh mesh{xyz, faces, labels, light, gloss, uv, texture ? cutout : nullptr, vertices, count};
    const Texture image{texture, texture_height, texture_width};
    const View view{fx, fy, cx, cy, width, height, samples, keep, encode};
    const Output out{color, alpha, label_map, depth};

    std::vector<Projected> points(vertices);
    for (int i = 0; i < vertices; ++i) {
        const float z = xyz[3 * i + 2];
        const float inverse_z = z > kNear ? 1.0f / z : 0.0f;
        points[i] = {fx * xyz[3 * i] * inverse_z + cx, fy * xyz[3 * i + 1] * inverse_z + cy, inverse_z};
    }

    // Lists of the triangles that touch each band, in the triangles' order.
    const int bands = (height + kBandRows - 1) / kBandRows;
    std::vector<int32_t> first(count), last(count), starts(bands + 1, 0);
    for (int i = 0; i < count; ++i) {
        const int32_t* f = faces + 3 * i;
        first[i] = 0, last[i] = -1;
        for (int k = 0; k < 3; ++k)
            if (f[k] < 0 || f[k] >= vertices) return 1;
        const Projected &p0 = points[f[0]], &p1 = points[f[1]], &p2 = points[f[2]];
        if (p0.inverse_z == 0 || p1.inverse_z == 0 || p2.inverse_z == 0) continue;
        const float low = std::min({p0.y, p1.y, p2.y}), high = std::max({p0.y, p1.y, p2.y});
        const float left = std::min({p0.x, p1.x, p2.x}), right = std::max({p0.x, p1.x, p2.x});
        if (!(high > 0 && low < float(height) && right > 0 && left < float(width))) continue;
        first[i] = std::max(0, int(low)) / kBandRows;
        last[i] = std::min(height - 1, int(high)) / kBandRows;
        for (int b = first[i]; b <= last[i]; ++b) ++starts[b + 1];
    }
    for (int b = 0; b < bands; ++b) starts[b + 1] += starts[b];
    std::vector<int32_t> lists(starts[bands]), filled(starts.begin(), starts.end() - 1);
    for (int i = 0; i < count; ++i)
        for (int b = first[i]; b <= last[i]; ++b) lists[filled[b]++] = i;

    std::atomic<int> next{0};
    auto work = [&]() {
        const size_t area = size_t(kBandRows) * samples * width * samples;
        std::vector<float> nearest(area + kLanes);  // a row's last lanes may reach over the end
        std::vector<Hit> hits(area);
        for (int b = next++; b < bands; b = next++) {
            const int row = b * kBandRows;
            draw_band(mesh, texture ? &image : nullptr, view, points, lists.data() + starts[b],
                      starts[b + 1] - starts[b], row, std::min(kBandRows, height - row), nearest, hits, out);
        }
    };
    std::vector<std::thread> pool;
    for (int i = 1; i < threads; ++i) pool.emplace_back(work);
    work();
    for (auto& thread : pool) thread.join();
    return 0;
}

}  // extern "C"
