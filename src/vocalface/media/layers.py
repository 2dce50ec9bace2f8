"""Masks and layers as small videos: lossless gray (FFV1) or near-lossless colour (H.264 4:4:4)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

from vocalface.errors import OutputError

MODES = ("labels", "gray", "rgb")


class LayerWriter:
    """Context manager; .mkv. `labels` and `gray` [H, W] uint8 are exact; `rgb` [H, W, 3] is coded at `crf`."""

    def __init__(self, path: Path | str, width: int, height: int, mode: str = "gray", crf: int = 12) -> None:
        self.path, self.mode = Path(path), mode
        self.part = self.path.with_name(f".{self.path.stem}.part.mkv")
        self.count = 0
        try:
            self.container = av.open(str(self.part), "w", format="matroska")
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"cannot write here ({error.strerror})", self.path, "choose another folder") from error
        if mode == "rgb":
            self.stream = self.container.add_stream("libx264", rate=25)
            self.stream.pix_fmt = "yuv444p"
            self.stream.options = {"crf": str(crf), "preset": "veryfast", "g": "50"}
            self.stream.codec_context.colorspace = 1
            self.stream.codec_context.color_range = 1
        else:
            self.stream = self.container.add_stream("ffv1", rate=25)
            self.stream.pix_fmt = "gray"
            self.stream.options = {"level": "3", "g": "25", "context": "1", "coder": "range_tab"}
        self.stream.width, self.stream.height = width, height

    def write(self, image: np.ndarray) -> None:
        kind = "rgb24" if self.mode == "rgb" else "gray"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=kind)
        if self.mode == "rgb":
            frame = frame.reformat(format="yuv444p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = self.count, Fraction(1, 25)
        self.count += 1
        self._mux(frame)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self.stream.encode(frame):
                self.container.mux(packet)
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"cannot write ({error.strerror or error})", self.path, "free some disk space") from error

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, kind, value, trace) -> None:
        try:
            if kind is None:
                self._mux(None)
        finally:
            self.container.close()
            if kind is None:
                self.part.replace(self.path)
            else:
                self.part.unlink(missing_ok=True)


def read_layer(path: Path | str, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Frames [start, stop) of a layer: [H, W] uint8, or [H, W, 3] for a colour layer."""
    from vocalface.media.clip import open_container, to_rgb

    with open_container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if start:
            container.seek(int(start / 25 / stream.time_base), stream=stream, backward=True)
        for raw in container.decode(stream):
            index = round(float(raw.pts * raw.time_base) * 25)
            if index < start:
                continue
            if stop is not None and index >= stop:
                return
            if raw.format.name.startswith("gray"):
                yield raw.to_ndarray()
            else:
                yield to_rgb(raw, raw.width, raw.height, 0)
