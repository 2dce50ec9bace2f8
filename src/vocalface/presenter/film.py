"""Films the presenter: frames, sound and observations, in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import ConfigError, OutputError
from vocalface.observe import store
from vocalface.observe.indices import EARS
from vocalface.presenter import landmarks
from vocalface.presenter.motion import Motion, perform
from vocalface.presenter.scene import Frame, Person
from vocalface.presenter.voice import Utterance, script, speak
from vocalface.types import FPS, CropBox, FaceTrack, Observations, frames_for

CRF = 12


def film(
    folder: Path, seconds: float, *, seed: int, size: int, voice: str,
    progress: Callable[[int, int, str], None] | None = None,
) -> Observations:  # fmt: skip
    """See `presenter.make`."""
    if not 1.0 <= seconds <= 36_000:
        raise ConfigError(f"cannot speak for {seconds} s", "presenter", "use 1 to 36000 seconds")
    if not 32 <= size <= 2048 or size % 2:
        raise ConfigError(f"cannot draw at {size} px", "presenter", "use an even size from 32 to 2048")
    utterance = speak(script(seconds, seed), voice=voice, seed=seed, seconds=seconds)
    frames = frames_for(len(utterance.sound.samples), utterance.sound.rate)
    motion = perform(utterance.phones, frames, seed=seed)
    person = Person(seed, size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make this folder ({error.strerror})", folder, "choose another with -o") from error
    clip = folder / "presenter.mp4"
    writer = store.ObservationsWriter(folder / "presenter.obs", size)
    points = np.empty((frames, 478, 3), np.float32)
    try:
        with media.VideoWriter(clip, size, size, fps=FPS, sound=utterance.sound, crf=CRF, metadata=_tags(seed)) as out:
            ears = _draw(person, motion, points, out, writer, progress)
    except BaseException:
        writer.abort()
        raise
    poses = motion.head_pose.copy()
    poses[:, :3, 3] += poses[:, :3, :3] @ ears  # observations have the head's origin there
    track = FaceTrack(
        np.ones(frames, bool), points, landmarks.blendshapes(motion.action_units, motion.gaze),
        motion.action_units.astype(np.float32), poses.astype(np.float32),
    )  # fmt: skip
    return writer.finish(
        clip=clip, clip_hash=store.file_hash(clip), crop=CropBox(0, 0, size), camera=person.camera, track=track,
        plate=person.plate, shots=[(0, frames)], info=_info(utterance, seed, voice),
    )  # fmt: skip


def _draw(person: Person, motion: Motion, points: np.ndarray, out, writer, progress) -> np.ndarray:
    """Draws every frame; one thread writes while the next frame is drawn. Gives the point midway between the ears'
    landmarks, [3] in the head's frame."""
    ears = np.zeros(3)

    def write(frame: Frame) -> None:
        out.write(frame.image)
        writer.add(frame.labels, frame.head_alpha, frame.torso)

    with ThreadPoolExecutor(1) as pool:
        pending = None
        for i in range(len(motion)):
            state = motion.state(i)
            frame = person.draw(state)
            surface = landmarks.on_surface(frame.vertices, state.gaze)
            ears += surface[EARS].mean(axis=0) / len(motion)
            points[i] = landmarks.project(surface, state.head_pose, person.camera)
            if pending is not None:
                pending.result()
            pending = pool.submit(write, frame)
            if progress is not None:
                progress(i + 1, len(motion), "presenter")
        pending.result()
    return ears


def _tags(seed: int) -> dict[str, str]:
    return {"comment": f"synthetic person made by vocalface, seed {seed}"}


def _info(utterance: Utterance, seed: int, voice: str) -> dict:
    return {
        "provider": "presenter", "seed": seed, "voice": voice, "exact": True,
        "phones": [[p.symbol, round(p.start, 4), round(p.end, 4)] for p in utterance.phones],
    }  # fmt: skip
