"""Masks and layers as small videos: lossless gray (FFV1) or near-lossless colour (H.264 4:4:4)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vocalface.errors import ConfigError, MediaError
from vocalface.media.container import BICUBIC, BT709, EXACT, Converter, decode, open_container, picture_stream
from vocalface.media.write import PartFile, PictureWriter

MODES = ("labels", "gray", "rgb")
FPS = 25


class LayerWriter(PictureWriter):
    """Context manager; Matroska. `labels` and `gray` [H, W] uint8 are exact; `rgb` [H, W, 3] is coded at `crf`.

    Raises:
        ConfigError: an unknown mode, a frame of another shape. OutputError: what cannot be written.
    """

    def __init__(self, path: Path | str, width: int, height: int, mode: str = "gray", crf: int = 12) -> None:
        if mode not in MODES:
            raise ConfigError(f"no layer mode is called {mode!r}", path, f"use one of {', '.join(MODES)}")
        self.path, self.mode, self.count = Path(path), mode, 0
        self.shape = (height, width, 3) if mode == "rgb" else (height, width)
        self.file = PartFile(self.path, "matroska", ".mkv")
        with self.file.cleaned():
            self.stream = self.file.container.add_stream("libx264" if mode == "rgb" else "ffv1", rate=FPS)
            self.stream.width, self.stream.height = width, height
            if mode == "rgb":
                self.stream.pix_fmt = "yuv444p"
                self.stream.options = {"crf": str(crf), "preset": "veryfast", "g": "50"}
                context = self.stream.codec_context
                context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1
            else:
                self.stream.pix_fmt = "gray"
                # Read four times as fast as with range_tab, and no larger where the masks are a real person's.
                self.stream.options = {"level": "3", "g": "25", "context": "0", "coder": "rice"}
        self._convert = VideoReformatter()

    def write(self, image: np.ndarray) -> None:
        if image.shape != self.shape:
            raise ConfigError(f"a layer has shape {image.shape}, expected {self.shape}", self.path, "keep one size")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24" if self.mode == "rgb" else "gray")
        if self.mode == "rgb":
            frame = self._convert.reformat(frame, format="yuv444p", dst_colorspace=BT709, interpolation=BICUBIC | EXACT)
        frame.pts, frame.time_base = self.count, Fraction(1, FPS)
        self.count += 1
        with self.file.guarded():
            self.encode(frame)


def read_layer(path: Path | str, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Frames [start, stop) of a layer: [H, W] uint8, or [H, W, 3] for a colour layer; begins at a key frame.

    A layer that ends before `stop` just ends. Raises MediaError where the file is absent or damaged within.
    """
    with open_container(path) as container:
        stream = picture_stream(container)
        if stream is None:
            raise MediaError("no layer in this file", path, "observe the clip again")
        stream.thread_type = "AUTO"
        if start:
            container.seek(int(start / FPS / stream.time_base), stream=stream, backward=True)
        gray = stream.codec_context.pix_fmt.startswith("gray")
        convert = None if gray else Converter(stream.codec_context.width, stream.codec_context.height)
        expected = start
        for raw in decode(container, stream):
            index = round(float(raw.pts * raw.time_base) * FPS)
            if index < expected:
                continue
            if stop is not None and index >= stop:
                return
            if index > expected:
                raise MediaError(f"the layer is damaged at frame {expected}", path, "observe the clip again")
            yield raw.to_ndarray() if gray else convert(raw)
            expected += 1
