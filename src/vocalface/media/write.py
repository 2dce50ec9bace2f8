"""Video files out: written beside their place and moved there only when whole."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vocalface.errors import ConfigError, OutputError
from vocalface.media.container import BICUBIC, BT709, EXACT
from vocalface.types import Sound

if TYPE_CHECKING:
    from typing import Self

# suffix -> container, picture codec, sound codec
KINDS = {
    ".mp4": ("mp4", "libx264", "aac"),
    ".m4v": ("mp4", "libx264", "aac"),
    ".mov": ("mov", "libx264", "aac"),
    ".mkv": ("matroska", "libx264", "aac"),
    ".webm": ("webm", "libvpx-vp9", "libopus"),
    "": ("mp4", "libx264", "aac"),
}
ALPHA = {".mov": "prores_ks", ".webm": "libvpx-vp9"}


class PartFile:
    """A container that is written as `.NAME.part.EXT` and becomes `path` in `finish`, or is removed in `discard`."""

    def __init__(self, path: Path, kind: str, suffix: str, options: dict[str, str] | None = None) -> None:
        self.path = path
        if not path.parent.is_dir():
            raise OutputError("the output folder does not exist", path.parent, f"mkdir -p {path.parent}")
        if path.is_dir():
            raise OutputError("a folder has this name", path, "choose another name with -o")
        self.part = path.with_name(f".{path.name}.part{suffix}")
        with self.guarded():
            self.container = av.open(str(self.part), "w", format=kind, options=options or {})

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """FFmpeg's errors as OutputError."""
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            if error.errno == errno.ENOSPC:
                raise OutputError("the disk is full", self.path, "free some space, or choose another -o") from error
            reason = error.strerror or type(error).__name__
            raise OutputError(f"cannot write this file ({reason})", self.path, "choose another with -o") from error

    @contextlib.contextmanager
    def cleaned(self) -> Iterator[None]:
        """As `guarded`; whatever goes wrong, the part file goes away."""
        try:
            with self.guarded():
                yield
        except BaseException:
            self.discard()
            raise

    def finish(self) -> None:
        self.container.close()
        self.part.replace(self.path)

    def discard(self) -> None:
        with contextlib.suppress(OSError, av.FFmpegError, ValueError):
            self.container.close()
        with contextlib.suppress(OSError):
            self.part.unlink(missing_ok=True)


class PictureWriter:
    """Context manager: pictures into a part file, which takes its name when it is whole and goes at an error."""

    file: PartFile
    stream: av.VideoStream

    def encode(self, frame: av.VideoFrame | None) -> None:
        self.file.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        """Write what is still owed, after the last picture."""
        self.encode(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, value, trace) -> None:
        if kind is not None:
            self.file.discard()
            return
        with self.file.cleaned():
            self.finish()
            self.file.finish()


class VideoWriter(PictureWriter):
    """Context manager; `write` takes frames in order, the file appears on a clean exit and never otherwise.

    Args:
        path: .mp4 (H.264 + AAC), .mkv, .mov or .webm.
        width, height: of the frames, px (odd sizes are padded by one: 4:2:0 has no half pixels).
        fps: constant frame rate.
        sound: a Sound, or the path of a media file whose sound goes in, in step with its own picture if it has one;
            cut, or padded with silence, to the picture's length.
        codec: another encoder for the picture, e.g. libx265 or ffv1 (lossless).
        crf, preset, gop: x264's quality (lower is better), speed, and key-frame distance.
        metadata: tags; names of your own survive in every container.
        alpha: RGBA frames; ProRes 4444 in .mov, VP9 in .webm.
        copy_sound: take the packets of a sound path as they are where the container can hold them (no loss; cut at
            packets, 20 to 60 ms).

    Raises:
        ConfigError: a file type that is not written, or cannot hold alpha; an unknown codec; frames of another shape.
        OutputError: the folder cannot be written, the disk is full, no frame was written.
    """

    def __init__(
        self, path: Path | str, width: int, height: int, fps: float = 25, *, sound: Sound | Path | str | None = None,
        codec: str | None = None, crf: int = 18, preset: str = "veryfast", gop: int | None = None,
        metadata: dict[str, str] | None = None, alpha: bool = False, copy_sound: bool = False,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in KINDS:
            raise ConfigError(f"videos are not written as {suffix}", path, "write .mp4, .mov, .mkv or .webm")
        if alpha and suffix not in ALPHA:
            raise ConfigError(f"{suffix or 'this file type'} cannot hold alpha", path, "write .mov or .webm")
        self.width, self.height, self.alpha = width, height, alpha
        self.frames = 0
        self.rate = Fraction(fps).limit_denominator(1001)
        kind, picture, spoken = KINDS[suffix]
        options = {"movflags": "+faststart+use_metadata_tags"} if kind in ("mp4", "mov") else {}
        self.file = PartFile(self.path, kind, suffix or ".mp4", options)
        with self.file.cleaned():
            self.file.container.metadata.update({k: str(v) for k, v in (metadata or {}).items()})
            self._open_picture(codec or (ALPHA[suffix] if alpha else picture), crf, preset, gop)
            self.track = None
            if sound is not None:
                from vocalface.media.track import open_track

                self.track = open_track(self.file.container, sound, spoken, copy=copy_sound)
        self._convert = VideoReformatter()

    def _open_picture(self, codec: str, crf: int, preset: str, gop: int | None) -> None:
        try:
            stream = self.file.container.add_stream(codec, rate=self.rate)
        except ValueError as error:  # PyAV's UnknownCodecError is one; so is a codec that the container cannot hold
            raise ConfigError(f"cannot encode with {codec} here", self.path, "leave the codec out") from error
        even = codec != "ffv1"
        stream.width = self.width + even * (self.width % 2)
        stream.height = self.height + even * (self.height % 2)
        stream.time_base = 1 / self.rate
        if codec == "prores_ks":
            stream.pix_fmt, stream.options = "yuva444p10le", {"profile": "4444"}
        elif codec.startswith("libvpx"):
            stream.pix_fmt = "yuva420p" if self.alpha else "yuv420p"
            stream.options = {"crf": str(crf + 10), "b": "0", "deadline": "realtime", "cpu-used": "8"}
        elif codec == "ffv1":
            stream.pix_fmt, stream.options = "bgr0", {"level": "3"}
        else:
            stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf), "preset": preset}
            if gop:
                stream.options |= {"g": str(gop), "bf": "0"}
        if codec != "ffv1":
            context = stream.codec_context
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1  # BT.709
        self.stream = stream

    def write(self, image: np.ndarray) -> None:
        """One frame, [H, W, 3] uint8 RGB, or [H, W, 4] with alpha (straight)."""
        expected = (self.height, self.width, 4 if self.alpha else 3)
        if image.shape != expected or image.dtype != np.uint8:
            found = f"{list(image.shape)} {image.dtype}"
            raise ConfigError(f"a frame is {found}, expected {list(expected)} uint8", self.path, "keep one size")
        down, across = self.stream.height - self.height, self.stream.width - self.width
        if down or across:
            image = np.pad(image, ((0, down), (0, across), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgba" if self.alpha else "rgb24")
        frame = self._convert.reformat(
            frame, format=self.stream.pix_fmt, dst_colorspace=BT709, interpolation=BICUBIC | EXACT
        )
        frame.pts, frame.time_base = self.frames, 1 / self.rate
        self.frames += 1
        with self.file.guarded():
            if self.track is not None:  # sound first, so that the two interleave and nothing piles up
                self.track.feed(self.frames / self.rate)
            self.encode(frame)

    def finish(self) -> None:
        if not self.frames:
            raise OutputError("no frame was written", self.path, "give speech or footage that has a length")
        super().finish()
        if self.track is not None:
            self.track.finish()
