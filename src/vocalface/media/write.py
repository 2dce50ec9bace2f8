"""Video files out: written beside their place and moved there only when whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

from vocalface.errors import ConfigError, OutputError
from vocalface.types import Sound


class VideoWriter:
    """Context manager; `write` takes frames in order, the file appears on a clean exit and never otherwise.

    Args:
        path: .mp4 (H.264 + AAC), .mkv, .mov or .webm.
        width, height: of the frames, px (odd sizes are padded by one).
        fps: constant frame rate.
        sound: a Sound, or the path of a media file whose sound goes in; cut or padded to the picture's length.
        crf, preset, gop: x264's quality (lower is better), speed, and key-frame distance.
        metadata: tags.
        alpha: RGBA frames; ProRes 4444 in .mov, VP9 in .webm. ConfigError for any other file type.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """

    def __init__(
        self, path: Path | str, width: int, height: int, fps: float = 25, *, sound: Sound | Path | str | None = None,
        codec: str | None = None, crf: int = 18, preset: str = "veryfast", gop: int | None = None,
        metadata: dict[str, str] | None = None, alpha: bool = False,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if alpha and suffix not in (".mov", ".webm"):
            raise ConfigError(f"{suffix or 'this file type'} cannot hold alpha", path, "write .mov or .webm")
        if not self.path.parent.is_dir():
            raise OutputError("the output folder does not exist", self.path.parent, f"mkdir -p {self.path.parent}")
        self.part = self.path.with_name(f".{self.path.stem}.part{self.path.suffix or '.mp4'}")
        self.width, self.height, self.alpha = width, height, alpha
        self.frames = 0
        self.rate = Fraction(fps).limit_denominator(1001)
        self._sound = sound
        options = {"movflags": "+faststart+use_metadata_tags"} if suffix in (".mp4", ".mov", "") else {}
        try:
            self.container = av.open(str(self.part), "w", options=options)
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"cannot write here ({error.strerror})", self.path, "choose another with -o") from error
        self.container.metadata.update(metadata or {})
        if alpha:
            codec = "prores_ks" if suffix == ".mov" else "libvpx-vp9"
        codec = codec or ("libvpx-vp9" if suffix == ".webm" else "libx264")
        self.stream = self.container.add_stream(codec, rate=self.rate)
        self.stream.width, self.stream.height = width + width % 2, height + height % 2
        self.stream.time_base = 1 / self.rate
        if codec == "libx264":
            self.stream.pix_fmt = "yuv420p"
            self.stream.options = {"crf": str(crf), "preset": preset}
            if gop:
                self.stream.options |= {"g": str(gop), "bf": "0"}
        elif codec == "prores_ks":
            self.stream.pix_fmt, self.stream.options = "yuva444p10le", {"profile": "4444"}
        else:
            self.stream.pix_fmt = "yuva420p" if alpha else "yuv420p"
            self.stream.options = {"crf": str(crf + 10), "b": "0", "deadline": "realtime", "cpu-used": "8"}
        context = self.stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1  # BT.709
        self.audio = None
        if sound is not None:
            self._open_sound(suffix)

    # --------------------------------------------------------------------------------------------------------- sound
    def _open_sound(self, suffix: str) -> None:
        native = self._sound.rate if isinstance(self._sound, Sound) else 48_000
        self.sound_rate = (
            48_000 if suffix == ".webm" or native not in (16_000, 22_050, 24_000, 32_000, 44_100) else native
        )
        self.audio = self.container.add_stream("libopus" if suffix == ".webm" else "aac", rate=self.sound_rate)
        self.audio.layout = "mono" if isinstance(self._sound, Sound) else "stereo"
        if suffix != ".webm":
            self.audio.bit_rate = 128_000 if isinstance(self._sound, Sound) and native <= 24_000 else 192_000
        self._pieces = self._sound_pieces()
        self._pending = np.zeros((0, 1 if isinstance(self._sound, Sound) else 2), np.float32)
        self._sent = 0
        self._dry = False
        kind = "flt" if suffix == ".webm" else "fltp"
        self._fit = av.AudioResampler(format=kind, layout=self.audio.layout.name, rate=self.sound_rate)

    def _sound_pieces(self) -> Iterator[np.ndarray]:
        if not isinstance(self._sound, Sound):
            from vocalface.media.sound import decode

            for _, piece in decode(self._sound, self.sound_rate, "stereo"):
                yield piece
            return
        samples, rate = self._sound.samples, self._sound.rate
        if rate == self.sound_rate:
            for at in range(0, len(samples), rate):
                yield samples[at : at + rate, None]
            return
        resampler = av.AudioResampler(format="flt", layout="mono", rate=self.sound_rate)
        for at in range(0, len(samples), rate):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None, at : at + rate]), "flt", "mono")
            frame.rate = rate
            for out in resampler.resample(frame):
                yield out.to_ndarray().reshape(-1, 1)
        for out in resampler.resample(None):
            yield out.to_ndarray().reshape(-1, 1)

    def _feed_sound(self, until: int) -> None:
        """Encode sound up to sample `until`, so that picture and sound interleave and nothing piles up."""
        while self._sent + len(self._pending) < until and not self._dry:
            piece = next(self._pieces, None)
            if piece is None:
                self._dry = True
            else:
                self._pending = np.concatenate([self._pending, piece])
        count = min(until - self._sent, len(self._pending))
        if count <= 0:
            return
        block, self._pending = self._pending[:count], self._pending[count:]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.reshape(1, -1)), "flt", self.audio.layout.name)
        frame.rate, frame.pts, frame.time_base = self.sound_rate, self._sent, Fraction(1, self.sound_rate)
        for fitted in self._fit.resample(frame):
            self._mux(self.audio.encode(fitted))
        self._sent += count

    # ------------------------------------------------------------------------------------------------------- picture
    def write(self, image: np.ndarray) -> None:
        """One frame, [H, W, 3] uint8 RGB, or [H, W, 4] with alpha."""
        expected = (self.height, self.width, 4 if self.alpha else 3)
        if image.shape != expected:
            raise ConfigError(f"a frame has shape {image.shape}, expected {expected}", self.path, "keep one size")
        if self.width % 2 or self.height % 2:
            image = np.pad(image, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgba" if self.alpha else "rgb24")
        frame = frame.reformat(format=self.stream.pix_fmt, dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = self.frames, 1 / self.rate
        self.frames += 1
        if self.audio is not None:
            self._feed_sound(int(self.frames / self.rate * self.sound_rate))
        self._mux(self.stream.encode(frame))

    def _mux(self, packets) -> None:
        try:
            for packet in packets:
                self.container.mux(packet)
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"cannot write ({error.strerror or error})", self.path, "free some disk space") from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind, value, trace) -> None:
        try:
            if kind is None:
                self._mux(self.stream.encode(None))
                if self.audio is not None:
                    for fitted in self._fit.resample(None):
                        self._mux(self.audio.encode(fitted))
                    self._mux(self.audio.encode(None))
                self.container.close()
                self.part.replace(self.path)
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"cannot write ({error.strerror or error})", self.path, "free some disk space") from error
        finally:
            if self.part.exists():
                with contextlib.suppress(OSError, av.FFmpegError):
                    self.container.close()
                self.part.unlink(missing_ok=True)
