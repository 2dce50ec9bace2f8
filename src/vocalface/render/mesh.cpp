// Textured triangles to pixels through a z-buffer, with supersampling. The specification is mesh_reference.py.
//
// Samples lie on a regular s x s grid in each pixel. Threads take bands of pixel rows; a band first finds for every
// sample the nearest triangle (depth, barycentrics), then shades each visible sample once and averages.
// No -ffast-math; all shared values are computed in float32 by the same steps as in the reference.

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors never cross a library border

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

namespace {

const float kNone[3] = {0, 0, 0};
constexpr float kNear = 0.01f;
constexpr float kSlack = -1e-5f;  // neighbours overlap by this, lest rounding leave a gap between them
constexpr int kBandRows = 16;  // pixel rows a band

constexpr int kLanes = 8;   // samples of a row that are tested at once
constexpr int kLabels = 32;  // labels are below
constexpr int kU = 3, kV = 7;  // where texture coordinates lie in a vertex's paint
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t Flags __attribute__((vector_size(4 * kLanes)));
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Flags{__VA_ARGS__})
#endif
const Lanes kNothing = {};
const Lanes kCount = {0, 1, 2, 3, 4, 5, 6, 7};

struct Mesh {
    const float* xyz;        // [V,3] camera space, metres
    const int32_t* faces;    // [F,3]
    const uint8_t* labels;   // [F]
    const Lanes* paint;      // [V] light (3), u, gloss (3), v; u and v in texels
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

std::vector<Projected> project(const float* xyz, int vertices, const View& v) {
    std::vector<Projected> points(vertices);
    for (int i = 0; i < vertices; ++i) {
        const float z = xyz[3 * i + 2];
        const float inverse_z = z > kNear ? 1.0f / z : 0.0f;
        points[i] = {v.fx * xyz[3 * i] * inverse_z + v.cx, v.fy * xyz[3 * i + 1] * inverse_z + v.cy, inverse_z};
    }
    return points;
}

// Lists of the triangles that touch each band of pixel rows, in the triangles' order.
struct Bands {
    int count = 0;
    std::vector<int32_t> starts, lists;

    // False on a face index out of range.
    bool sort(const std::vector<Projected>& points, const int32_t* faces, int triangles, const View& v) {
        count = (v.height + kBandRows - 1) / kBandRows;
        starts.assign(count + 1, 0);
        std::vector<int32_t> first(triangles), last(triangles);
        for (int i = 0; i < triangles; ++i) {
            const int32_t* f = faces + 3 * i;
            first[i] = 0, last[i] = -1;
            for (int k = 0; k < 3; ++k)
                if (f[k] < 0 || size_t(f[k]) >= points.size()) return false;
            const Projected &p0 = points[f[0]], &p1 = points[f[1]], &p2 = points[f[2]];
            if (p0.inverse_z == 0 || p1.inverse_z == 0 || p2.inverse_z == 0) continue;
            const float low = std::min({p0.y, p1.y, p2.y}), high = std::max({p0.y, p1.y, p2.y});
            const float left = std::min({p0.x, p1.x, p2.x}), right = std::max({p0.x, p1.x, p2.x});
            if (!(high > 0 && low < float(v.height) && right > 0 && left < float(v.width))) continue;
            first[i] = std::max(0, int(low)) / kBandRows;
            last[i] = std::min(v.height - 1, int(high)) / kBandRows;
            for (int b = first[i]; b <= last[i]; ++b) ++starts[b + 1];
        }
        for (int b = 0; b < count; ++b) starts[b + 1] += starts[b];
        lists.resize(starts[count]);
        std::vector<int32_t> filled(starts.begin(), starts.end() - 1);
        for (int i = 0; i < triangles; ++i)
            for (int b = first[i]; b <= last[i]; ++b) lists[filled[b]++] = i;
        return true;
    }

    const int32_t* begin(int band) const { return lists.data() + starts[band]; }
    int size(int band) const { return starts[band + 1] - starts[band]; }
};

// Runs `work` here and in further threads.
template <class Work>
void together(int threads, Work& work) {
    std::vector<std::thread> pool;
    for (int i = 1; i < threads; ++i) pool.emplace_back([&work] { work(); });
    work();
    for (auto& thread : pool) thread.join();
}

template <class Values, class T>
inline Values loaded(const T* from) {
    Values values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

template <class Values, class T>
inline void store(const Values& values, T* to) {
    std::memcpy(to, &values, sizeof values);
}

inline Lanes limited(const Lanes& given, float most) {
    const Lanes x = given > 0.0f ? given : kNothing;
    return x < most ? x : kNothing + most;
}

inline Lanes channel(const Flags& words, int which) {
    return __builtin_convertvector(words >> 8 * which & 255, Lanes);
}

// Eight bilinear samples of a texture, at texels u and v.
struct Texels {
    Flags corners[4];  // the words of the four texels around each: above, left and right, then below
    Lanes fu, fv;

    Texels(const Texture& t, const Lanes& u, const Lanes& v) {
        fu = limited(u - 0.5f, float(t.width - 1)), fv = limited(v - 0.5f, float(t.height - 1));
        const Flags left = __builtin_convertvector(limited(fu, float(std::max(t.width - 2, 0))), Flags);
        const Flags top = __builtin_convertvector(limited(fv, float(std::max(t.height - 2, 0))), Flags);
        fu -= __builtin_convertvector(left, Lanes), fv -= __builtin_convertvector(top, Lanes);
        const Flags first = top * t.width + left;
        const size_t right = t.width > 1 ? 4 : 0, below = t.height > 1 ? 4 * size_t(t.width) : 0;
        alignas(Flags) uint32_t words[4][kLanes];
        for (int k = 0; k < kLanes; ++k) {
            const uint8_t* at = t.rgba + 4 * size_t(first[k]);
            std::memcpy(&words[0][k], at, 4), std::memcpy(&words[1][k], at + right, 4);
            std::memcpy(&words[2][k], at + below, 4), std::memcpy(&words[3][k], at + below + right, 4);
        }
        for (int k = 0; k < 4; ++k) corners[k] = loaded<Flags>(words[k]);
    }

    // A channel, 0 to 255.
    Lanes operator[](int which) const {
        const Lanes upper = channel(corners[0], which), lower = channel(corners[2], which);
        const Lanes above = upper + fu * (channel(corners[1], which) - upper);
        const Lanes below = lower + fu * (channel(corners[3], which) - lower);
        return above + fv * (below - above);
    }
};

// Whether the nearest texels are there.
inline Flags solid(const Texture& t, const Lanes& u, const Lanes& v) {
    const Flags x = __builtin_convertvector(limited(u, float(t.width - 1)), Flags);
    const Flags y = __builtin_convertvector(limited(v, float(t.height - 1)), Flags);
    const Flags at = y * t.width + x;
    Flags there;
    for (int k = 0; k < kLanes; ++k) there[k] = t.rgba[4 * size_t(at[k]) + 3];
    return there >= 128;
}

// The vertices' values where the second and third have the weights a and b.
inline Lanes mix(const Mesh& m, const int32_t* f, float a, float b) {
    const Lanes first = m.paint[f[0]];
    return first + a * (m.paint[f[1]] - first) + b * (m.paint[f[2]] - first);
}

// One of these values at eight hits, whose weights are a and b.
inline Lanes mix(const Mesh& m, const int32_t* f, int which, const Lanes& a, const Lanes& b) {
    const float first = m.paint[f[0]][which];
    return first + a * (m.paint[f[1]][which] - first) + b * (m.paint[f[2]][which] - first);
}

// What each sample of a band sees: the nearest triangle, the inverse depth there, and the weights of that triangle's
// second and third vertex over their depths.
struct Samples {
    std::vector<float> nearest, second, third;
    std::vector<int32_t> face;  // -1: none

    explicit Samples(size_t count)  // a row's last lanes may reach over the end
        : nearest(count + kLanes), second(count + kLanes), third(count + kLanes), face(count + kLanes) {}

    void clear() {
        std::fill(nearest.begin(), nearest.end(), 0.0f);  // inverse depth: larger is nearer
        std::fill(face.begin(), face.end(), -1);
    }
};

inline bool any(const Flags& flags) {
    uint64_t words[kLanes / 2];
    std::memcpy(words, &flags, sizeof words);
    return (words[0] | words[1]) | (words[2] | words[3]);
}

// The samples of a band that a triangle may cover: a box, and in each row what lies between its edges' crossings.
struct Cover {
    int x_begin, x_end, y_begin, y_end, width, s;
    bool narrow;  // one test tells of a whole row
    float slope[3], inverse_area;
    const Projected* corner[4];

    // `s` samples a pixel each way, `top`: the band's first row, px.
    Cover(const Projected& p0, const Projected& p1, const Projected& p2, int width, int height, int s, float top)
        : width(width), s(s), corner{&p0, &p1, &p2, &p0} {
        const float area = (p1.x - p0.x) * (p2.y - p0.y) - (p1.y - p0.y) * (p2.x - p0.x);
        inverse_area = 1.0f / area;
        const float low_x = std::min({p0.x, p1.x, p2.x}), high_x = std::max({p0.x, p1.x, p2.x});
        const float low_y = std::min({p0.y, p1.y, p2.y}), high_y = std::max({p0.y, p1.y, p2.y});
        x_begin = int(std::max(0.0f, std::ceil(low_x * s - 0.5f)));
        x_end = int(std::min(float(width - 1), std::floor(high_x * s - 0.5f)));
        y_begin = int(std::max(0.0f, std::ceil((low_y - top) * s - 0.5f)));
        y_end = int(std::min(float(height - 1), std::floor((high_y - top) * s - 0.5f)));
        if (x_begin > x_end || area == 0.0f) y_end = y_begin - 1;
        narrow = x_end - x_begin < kLanes;
        for (int k = 0; k < 3 && !narrow; ++k)
            slope[k] = (corner[k + 1]->x - corner[k]->x) / (corner[k + 1]->y - corner[k]->y);  // unused where level
    }

    // First and last sample of the row at `py`, with one to spare on either side; none: the last before the first.
    std::pair<int, int> row(float py) const {
        if (narrow) return {x_begin, x_end};
        float lowest = 1e9f, highest = -1e9f;
        for (int k = 0; k < 3; ++k) {
            const bool crosses = (corner[k]->y > py) != (corner[k + 1]->y > py);  // selected, not branched on
            const float x = (corner[k]->x + (py - corner[k]->y) * slope[k]) * s - 0.5f;
            lowest = std::min(lowest, crosses ? x : 1e9f), highest = std::max(highest, crosses ? x : -1e9f);
        }
        if (lowest > highest) return {0, -1};
        return {std::max(x_begin, int(std::max(lowest, -1.0f)) - 1),
                std::min(x_end, int(std::min(highest, float(width))) + 2)};
    }

    // Eight samples of a row: the corners' weights on the screen, the inverse depth, and whether the triangle is there.
    struct At {
        Lanes w0, w1, w2, inverse_z;
        Flags inside;
    };

    // At (px, py), px.
    At at(const Lanes& px, float py) const {
        const Projected &p0 = *corner[0], &p1 = *corner[1], &p2 = *corner[2];
        const Lanes dx = px - p0.x;
        const float dy = py - p0.y;
        At out;
        out.w1 = (dx * (p2.y - p0.y) - dy * (p2.x - p0.x)) * inverse_area;
        out.w2 = ((p1.x - p0.x) * dy - (p1.y - p0.y) * dx) * inverse_area;
        out.w0 = 1.0f - out.w1 - out.w2;
        out.inverse_z = out.w0 * p0.inverse_z + out.w1 * p1.inverse_z + out.w2 * p2.inverse_z;
        out.inside = (out.w0 >= kSlack) & (out.w1 >= kSlack) & (out.w2 >= kSlack);
        return out;
    }
};

inline Lanes root(const Lanes& x) {
    alignas(Lanes) float values[kLanes];
    store(x, values);
    for (float& value : values) value = std::sqrt(value);
    return loaded<Lanes>(values);
}

// Eight vectors of eight, transposed: words in pairs, pairs in fours, fours in eights.
inline void transpose(Lanes* rows) {
    Lanes pairs[kLanes], fours[kLanes];
    for (int k = 0; k < kLanes; k += 2) {
        pairs[k] = SHUFFLE(rows[k], rows[k + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[k + 1] = SHUFFLE(rows[k], rows[k + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int k = 0; k < kLanes; k += 4)
        for (int half = 0; half < 2; ++half) {
            const Lanes &a = pairs[k + half], &b = pairs[k + half + 2];
            fours[k + 2 * half] = SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
            fours[k + 2 * half + 1] = SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int k = 0; k < kLanes / 2; ++k) {
        rows[k] = SHUFFLE(fours[k], fours[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        rows[k + 4] = SHUFFLE(fours[k], fours[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

// The elements at eight places.
template <class Values, class T>
inline Values gathered(const T* from, const size_t* at) {
    return Values{from[at[0]], from[at[1]], from[at[2]], from[at[3]],
                  from[at[4]], from[at[5]], from[at[6]], from[at[7]]};
}

// The most frequent of s x s samples' labels, 0 where no triangle is; the lower of equals.
int frequent(const Mesh& m, const int32_t* faces, int s, int width) {
    int counts[kLabels] = {0}, best = 0;
    for (int k = 0; k < s * s; ++k) {
        const int32_t face = faces[size_t(k / s) * width + k % s];
        ++counts[face < 0 ? 0 : m.labels[face] & (kLabels - 1)];
    }
    for (int label = 1; label < kLabels; ++label)
        if (counts[label] > counts[best]) best = label;
    return best;
}

// The pixels of a band from its samples: eight pixels of a row at once.
void shade_band(const Mesh& m, const Texture* t, const View& v, const Samples& seen, int first_row, int rows,
                const Output& out) {
    const int s = v.samples, width = v.width * s;
    const float share = 1.0f / float(s * s);
    for (int y = 0; y < rows; ++y) {
        for (int x = 0; x < v.width; x += kLanes) {
            const int count = std::min(kLanes, v.width - x);
            const size_t first = size_t(y) * s * width + size_t(x) * s;  // the first pixel's first sample
            Lanes color[3] = {}, alpha = {}, deepest = {};
            Flags label = {}, several = {};
            for (int k = 0; k < s * s; ++k) {
                size_t at[kLanes];
                for (int i = 0; i < kLanes; ++i)
                    at[i] = first + size_t(k / s) * width + k % s + size_t(std::min(i, count - 1)) * s;
                const Flags face = gathered<Flags>(seen.face.data(), at);
                const Flags visible = face >= 0;
                Flags here = {};
                if (any(visible))
                    for (int i = 0; i < kLanes; ++i) here[i] = face[i] < 0 ? 0 : m.labels[face[i]] & (kLabels - 1);
                if (k == 0) label = here;
                several |= here != label;
                const Flags shown = visible & (((Flags{} + int32_t(v.keep)) >> here & 1) != 0);
                if (!any(visible)) continue;
                const Lanes inverse_z = gathered<Lanes>(seen.nearest.data(), at);
                deepest = inverse_z > deepest ? inverse_z : deepest;
                if (!any(shown)) continue;
                const Lanes z = 1.0f / (visible ? inverse_z : kNothing + 1.0f);
                const Lanes second = z * gathered<Lanes>(seen.second.data(), at);
                const Lanes third = z * gathered<Lanes>(seen.third.data(), at);
                Lanes values[kLanes];
                for (int i = 0; i < kLanes; ++i)
                    values[i] = shown[i] ? mix(m, m.faces + 3 * size_t(face[i]), second[i], third[i]) : kNothing;
                transpose(values);
                if (t) {
                    const Texels texels(*t, values[kU], values[kV]);
                    for (int c = 0; c < 3; ++c) {
                        const Lanes albedo = texels[c] * (1.0f / 255.0f);
                        values[c] *= albedo * albedo;
                    }
                }
                for (int c = 0; c < 3; ++c) {
                    const Lanes value = values[c] + values[4 + c];
                    color[c] += v.encode ? root(limited(value, 1.0f)) : value;
                }
                alpha += shown ? kNothing + 1.0f : kNothing;
            }
            for (int i = 0; i < count; ++i) {
                const size_t at = size_t(first_row + y) * v.width + x + i;
                for (int c = 0; c < 3; ++c) out.color[3 * at + c] = color[c][i] * share;
                out.alpha[at] = alpha[i] * share;
                out.depth[at] = deepest[i] > 0 ? 1.0f / deepest[i] : 0.0f;
                out.labels[at] = uint8_t(
                    several[i] ? frequent(m, seen.face.data() + first + size_t(i) * s, s, width) : label[i]);
            }
        }
    }
}

void draw_band(const Mesh& m, const Texture* t, const View& v, const std::vector<Projected>& points,
               const int32_t* listed, int listed_count, int first_row, int rows, Samples& seen, const Output& out) {
    const int s = v.samples, width = v.width * s, height = rows * s;
    const float step = 1.0f / float(s);
    seen.clear();
    for (int i = 0; i < listed_count; ++i) {
        const int face = listed[i];
        const int32_t* f = m.faces + 3 * face;
        const Projected &p0 = points[f[0]], &p1 = points[f[1]], &p2 = points[f[2]];
        const float top = float(first_row);
        const Cover cover(p0, p1, p2, width, height, s, top);
        const bool cut = m.cutout && m.cutout[face];
        for (int y = cover.y_begin; y <= cover.y_end; ++y) {
            const float py = top + (float(y) + 0.5f) * step;
            const auto [from_x, to_x] = cover.row(py);
            for (int x = from_x; x <= to_x; x += kLanes) {
                const size_t at = size_t(y) * width + x;
                const auto [w0, w1, w2, inverse_z, inside] = cover.at((kCount + (float(x) + 0.5f)) * step, py);
                const Lanes before = loaded<Lanes>(&seen.nearest[at]);
                Flags wins = inside & (inverse_z > before) & (kCount <= float(to_x - x));
                if (!any(wins)) continue;
                const Lanes second = w1 * p1.inverse_z, third = w2 * p2.inverse_z;
                if (cut) {
                    const Lanes z = 1.0f / inverse_z;
                    wins &= solid(*t, mix(m, f, kU, second * z, third * z), mix(m, f, kV, second * z, third * z));
                }
                const Lanes z_now = wins ? inverse_z : before;
                const Lanes second_now = wins ? second : loaded<Lanes>(&seen.second[at]);
                const Lanes third_now = wins ? third : loaded<Lanes>(&seen.third[at]);
                const Flags face_now = wins ? Flags{} + face : loaded<Flags>(&seen.face[at]);
                store(z_now, &seen.nearest[at]);
                store(second_now, &seen.second[at]);
                store(third_now, &seen.third[at]);
                store(face_now, &seen.face[at]);
            }
        }
    }
    shade_band(m, t, v, seen, first_row, rows, out);
}

// One band of `vf_mesh_warp`. `samples`: inverse depth, then u and v over depth, of the nearest triangle.
void warp_band(const std::vector<Projected>& points, const int32_t* faces, const float* uv, const Texture& t,
               const uint8_t* under, const View& v, const int32_t* listed, int listed_count, int first_row, int rows,
               std::vector<float>& samples, uint8_t* out) {
    const size_t plane = samples.size() / 3;
    float *nearest = samples.data(), *us = nearest + plane, *vs = us + plane;
    std::fill(nearest, nearest + plane, 0.0f);
    for (int i = 0; i < listed_count; ++i) {
        const int32_t* f = faces + 3 * listed[i];
        const Projected &p0 = points[f[0]], &p1 = points[f[1]], &p2 = points[f[2]];
        const float top = float(first_row);
        const Cover cover(p0, p1, p2, v.width, rows, 1, top);
        float u[3], w[3];
        for (int k = 0; k < 3; ++k)
            u[k] = uv[2 * f[k]] * cover.corner[k]->inverse_z, w[k] = uv[2 * f[k] + 1] * cover.corner[k]->inverse_z;
        for (int y = cover.y_begin; y <= cover.y_end; ++y) {
            const float py = top + float(y) + 0.5f;
            const auto [from_x, to_x] = cover.row(py);
            for (int x = from_x; x <= to_x; x += kLanes) {
                const size_t at = size_t(y) * v.width + x;
                const auto [w0, w1, w2, inverse_z, inside] = cover.at(kCount + (float(x) + 0.5f), py);
                const Lanes before = loaded<Lanes>(nearest + at);
                const Flags wins = inside & (inverse_z > before) & (kCount <= float(to_x - x));
                const Lanes z_now = wins ? inverse_z : before;
                const Lanes u_now = wins ? w0 * u[0] + w1 * u[1] + w2 * u[2] : loaded<Lanes>(us + at);
                const Lanes v_now = wins ? w0 * w[0] + w1 * w[1] + w2 * w[2] : loaded<Lanes>(vs + at);
                store(z_now, nearest + at);
                store(u_now, us + at);
                store(v_now, vs + at);
            }
        }
    }
    for (int y = 0; y < rows; ++y) {
        const size_t row = size_t(first_row + y) * v.width;
        for (int x = 0; x < v.width; x += kLanes) {
            const size_t at = size_t(y) * v.width + x;
            const Lanes inverse_z = loaded<Lanes>(nearest + at);
            Lanes u = loaded<Lanes>(us + at), w = loaded<Lanes>(vs + at);
            const auto seen = inverse_z > 0.0f;
            const Lanes z = 1.0f / (seen ? inverse_z : inverse_z + 1.0f);
            u *= z, w *= z;
            const Texels texels(t, u, w);
            const int count = std::min(kLanes, v.width - x);
            alignas(Flags) uint32_t below[kLanes] = {}, shown[kLanes];
            const Lanes share = seen ? texels[3] * (1.0f / 255.0f) : kNothing;
            Lanes color[3];
            for (int c = 0; c < 3; ++c) color[c] = texels[c];
            uint8_t* pixels = out + 3 * (row + x);
            bool opaque = true;
            for (int k = 0; k < kLanes; ++k) opaque &= share[k] > 0.999f;
            if (!opaque) {
                for (int k = 0; k < count; ++k) std::memcpy(&below[k], under + 3 * (row + x + k), 3);
                const Flags ground = loaded<Flags>(below);
                for (int c = 0; c < 3; ++c) {
                    const Lanes g = channel(ground, c);
                    color[c] = g + share * (color[c] - g);
                }
            }
            Flags packed = {};
            for (int c = 0; c < 3; ++c) packed |= __builtin_convertvector(color[c] + 0.5f, Flags) << (8 * c);
            std::memcpy(shown, &packed, sizeof packed);
            for (int k = 0; k + 1 < count; ++k) std::memcpy(pixels + 3 * k, &shown[k], 4);  // the fourth is overwritten
            std::memcpy(pixels + 3 * (count - 1), &shown[count - 1], 3);
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
    std::vector<Lanes> paint(vertices);
    for (int i = 0; i < vertices; ++i) {
        const float *l = light + 3 * i, *g = gloss ? gloss + 3 * i : kNone, *at = uv ? uv + 2 * i : kNone;
        paint[i] = Lanes{l[0], l[1], l[2], at[0], g[0], g[1], g[2], at[1]};
    }
    const Mesh mesh{xyz, faces, labels, paint.data(), texture ? cutout : nullptr, vertices, count};
    const Texture image{texture, texture_height, texture_width};
    const View view{fx, fy, cx, cy, width, height, samples, keep, encode};
    const Output out{color, alpha, label_map, depth};

    const std::vector<Projected> points = project(xyz, vertices, view);
    Bands bands;
    if (!bands.sort(points, faces, count, view)) return 1;

    std::atomic<int> next{0};
    auto work = [&]() {
        Samples seen(size_t(kBandRows) * samples * width * samples);
        for (int b = next++; b < bands.count; b = next++) {
            const int row = b * kBandRows;
            draw_band(mesh, texture ? &image : nullptr, view, points, bands.begin(b), bands.size(b), row,
                      std::min(kBandRows, height - row), seen, out);
        }
    };
    together(threads, work);
    return 0;
}

// A texture [height,width,4] drawn on a mesh, one sample a pixel, by its alpha over `under` [height,width,3], into bytes
// [height,width,3]; `under` alone where no triangle is. 0 on success, 1 on a face index out of range.
int vf_mesh_warp(const float* xyz, int vertices, const int32_t* faces, int count, const float* uv,
                 const uint8_t* texture, const uint8_t* under, float fx, float fy, float cx, float cy, int width,
                 int height, int threads, uint8_t* out) {
    const View view{fx, fy, cx, cy, width, height, 1, 0, 0};
    const std::vector<Projected> points = project(xyz, vertices, view);
    Bands bands;
    if (!bands.sort(points, faces, count, view)) return 1;
    const Texture image{texture, height, width};
    std::atomic<int> next{0};
    auto work = [&]() {
        std::vector<float> samples(3 * (size_t(kBandRows) * width + kLanes));
        for (int b = next++; b < bands.count; b = next++) {
            const int row = b * kBandRows;
            warp_band(points, faces, uv, image, under, view, bands.begin(b), bands.size(b), row,
                      std::min(kBandRows, height - row), samples, out);
        }
    };
    together(threads, work);
    return 0;
}

}  // extern "C"
