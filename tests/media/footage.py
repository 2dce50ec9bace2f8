"""Tiny media files for the tests of this room."""

import itertools
from fractions import Fraction

import av
import numpy as np

MS = Fraction(1, 1000)


def write_clip(
    path, times, *, levels=None, images=None, size=(64, 48), codec="libx264", pix_fmt="yuv420p",
    aspect=None, tags=None, sound=None, options=None, last=None,
):  # fmt: skip
    """A clip whose frame k, a flat gray of levels[k] or images[k], is shown from times[k] s on.

    sound: (samples [channels, n] float32, rate, start s). tags: colorspace, color_range … of the stream.
    """
    w, h = size
    levels = levels if levels is not None else [10 + 3 * k for k in range(len(times))]
    images = images if images is not None else [np.full((h, w, 3), level, np.uint8) for level in levels]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = w, h, pix_fmt
        fast = {"crf": "0", "preset": "ultrafast", "bf": "0"} if codec == "libx264" else {}
        stream.options = fast if options is None else options
        stream.time_base = stream.codec_context.time_base = MS
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        packets = []
        if sound is not None:
            packets += _sound_packets(out, *sound)
        space = (tags or {}).get("colorspace", 5)
        wide = (tags or {}).get("color_range", 1)
        for k, (time, image) in enumerate(zip(times, images)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=pix_fmt, dst_colorspace=space, dst_color_range=wide, interpolation=0x44004
            )
            frame.pts, frame.time_base = round(time * 1000), MS
            if last is not None and k == len(times) - 1:
                frame.duration = round(last * 1000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base if p.dts is not None else 0):
            out.mux(packet)
    return path


def show_through(path, matrix):
    """Put a display matrix [2, 2], (x, y) stored -> shown, into the header of an MP4's track."""
    (a, b), (c, d) = np.asarray(matrix) * 65536
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    values = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data[:at] + values + data[at + len(values) :])
    return path


def _sound_packets(out, samples, rate, start):
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    stream = out.add_stream("pcm_s16le", rate=rate)
    stream.layout = layout
    packets = []
    for at in range(0, samples.shape[1], rate // 10):
        block = (samples[:, at : at + rate // 10].T * 32767).round().astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "s16", layout)
        frame.rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate) + at
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def write_track(path, samples, rate, codec, *, layout="mono", gaps=None):
    """Sound [channels, n] alone, in the container of `path`; gaps: {sample: pause s before it}."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = layout
        kind = stream.codec_context.format.name if stream.codec_context.format else "fltp"
        fit = av.AudioResampler(kind, layout, rate)
        late = 0
        for at in range(0, samples.shape[1], rate // 10):
            late += round((gaps or {}).get(at, 0) * rate)
            block = np.ascontiguousarray(samples[:, at : at + rate // 10].T.reshape(1, -1), np.float32)
            frame = av.AudioFrame.from_ndarray(block, "flt", layout)
            frame.rate, frame.time_base, frame.pts = rate, Fraction(1, rate), at + late
            for fitted in fit.resample(frame) if not gaps else [frame]:
                out.mux(stream.encode(fitted))
        for fitted in itertools.chain(() if gaps else fit.resample(None), [None]):
            out.mux(stream.encode(fitted))
    return path
