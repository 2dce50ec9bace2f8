"""How fast a head speaks on this machine, part by part."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.hmtalker.drive import Options, SpeechControls, drive, layers_of
from vocalface.hmtalker.head import Head
from vocalface.hmtalker.runtime import Runtime
from vocalface.render import composite, native
from vocalface.types import SPEECH_RATE, Sound


@dataclass(frozen=True)
class Part:
    """Medians of one part, milliseconds a frame."""

    name: str
    wall: float
    cpu: float


def measure(name: str, f: Callable[[], object], runs: int, per: int = 1) -> Part:
    """Median wall and processor time of `f` over `runs` calls after two warm-ups, divided by `per` frames."""
    f(), f()
    walls, cpus = [], []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        f()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Part(name, 1e3 * float(np.median(walls)) / per, 1e3 * float(np.median(cpus)) / per)


def bench(head: Head, folder: Path, runs: int = 40, seconds: float = 4.0) -> dict:
    """Parts of a frame, and whole frames a second with and without encoding.

    Returns:
        {"speak_fps", "draw_fps", "parts": [Part], "machine"}; `speak_fps` includes H.264 and the container.
    """
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * SPEECH_RATE)) / SPEECH_RATE
    samples = (0.2 * np.sin(2 * np.pi * 140 * t) * (1 + np.sin(9 * t)) + 0.01 * rng.normal(size=len(t))).astype(
        np.float32
    )
    sound = Sound(samples, SPEECH_RATE)
    runtime, options = Runtime(head), Options(pose="still")
    frames = int(25 * seconds)

    def speech() -> None:
        controls = SpeechControls(runtime, head.feature_name, options)
        list(controls.push(samples))
        list(controls.flush())

    c_f, mouth = runtime.closed
    upper, pose = head.arrays["track.upper"][0], head.arrays["track.pose"][0]
    box = tuple(int(v) for v in head.arrays["box"])
    layers = layers_of(runtime, head.camera, box, c_f, upper, mouth, pose)
    behind = np.zeros((*layers[1].shape, 3), np.uint8)
    image = np.zeros((head.camera.width, head.camera.width, 3), np.uint8)
    parts = [
        measure("speech to controls", speech, 3, frames),
        measure("deformation", lambda: runtime.gaussians(c_f, upper, mouth, pose), runs),
        measure("deformation and drawing", lambda: layers_of(runtime, head.camera, box, c_f, upper, mouth, pose), runs),
        measure("compositing", lambda: composite(*layers, behind), runs),
    ]

    def encode() -> None:
        with media.VideoWriter(folder / "bench.mp4", image.shape[1], image.shape[0]) as video:
            for _ in range(25):
                video.write(image)

    parts.append(measure("encoding", encode, 3, 25))
    draw = measure("all but encoding", lambda: [None for _ in drive(head, sound, options)], 3, frames)

    def whole() -> None:
        with media.VideoWriter(folder / "bench.mp4", image.shape[1], image.shape[0], sound=sound) as video:
            for frame in drive(head, sound, options):
                video.write(frame.image)

    speak = measure("speak", whole, 3, frames)
    (folder / "bench.mp4").unlink(missing_ok=True)
    return {
        "speak_fps": round(1e3 / speak.wall, 1), "draw_fps": round(1e3 / draw.wall, 1), "parts": [*parts, draw, speak],
        "gaussians": len(runtime.face["means"]) + len(runtime.mouth["means"]), "size": head.camera.width,
        "machine": machine(),
    }  # fmt: skip


def machine() -> str:
    """Processor, threads and kernel variant in words."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{name}, {native.threads()} threads, {native.candidates()[0]}"
