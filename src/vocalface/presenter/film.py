"""Films the presenter: frames, sound and observations, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from vocalface import media
from vocalface.errors import ConfigError, OutputError
from vocalface.observe import store
from vocalface.observe.indices import EARS
from vocalface.presenter import landmarks
from vocalface.presenter.motion import Motion, perform
from vocalface.presenter.scene import Frame, Person
from vocalface.presenter.voice import Utterance, named, script, speak
from vocalface.render import native
from vocalface.types import FPS, CropBox, FaceTrack, Observations, frames_for

CRF = 12
AT_ONCE = 4  # frames that are drawn at the same time, where there are processors for it


def film(
    folder: Path, seconds: float, *, seed: int, size: int, voice: str,
    progress: Callable[[int, int, str], None] | None = None,
) -> Observations:  # fmt: skip
    """See `presenter.make`."""
    if not 1.0 <= seconds <= 36_000:
        raise ConfigError(f"cannot speak for {seconds} s", "presenter", "use 1 to 36000 seconds")
    if not 32 <= size <= 2048 or size % 2:
        raise ConfigError(f"cannot draw at {size} px", "presenter", "use an even size from 32 to 2048")
    speaker = named(voice)
    with ThreadPoolExecutor(1) as pool:
        born = pool.submit(Person, seed, size)
        utterance = speak(script(seconds, seed), voice=speaker, seed=seed, seconds=seconds)
        person = born.result()
    frames = frames_for(len(utterance.sound.samples), utterance.sound.rate)
    motion = perform(utterance.phones, frames, seed=seed)
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
    """Draws frames side by side and writes them in their order. Gives the point midway between the ears' landmarks, [3]
    in the head's frame."""
    ears, at_once = np.zeros(3), min(AT_ONCE, native.threads())
    idle: SimpleQueue[Person] = SimpleQueue()
    for one in [person, *(person.twin() for _ in range(at_once - 1))]:
        idle.put(one)

    def draw(i: int) -> tuple[Frame, np.ndarray]:
        state, one = motion.state(i), idle.get()
        try:
            frame = one.draw(state)
        finally:
            idle.put(one)
        surface = landmarks.on_surface(frame.vertices, state.gaze)
        points[i] = landmarks.project(surface, state.head_pose, person.camera)
        return frame, surface[EARS].mean(axis=0)

    with native.shared(at_once), ThreadPoolExecutor(at_once) as pool:
        coming = deque(pool.submit(draw, i) for i in range(min(at_once + 1, len(motion))))
        for i in range(len(motion)):
            frame, between_ears = coming.popleft().result()
            if i + at_once + 1 < len(motion):
                coming.append(pool.submit(draw, i + at_once + 1))
            ears += between_ears / len(motion)
            out.write(frame.image)
            writer.add(frame.labels, frame.head_alpha, frame.torso)
            if progress is not None:
                progress(i + 1, len(motion), "presenter")
    return ears


def _tags(seed: int) -> dict[str, str]:
    return {"comment": f"synthetic person made by vocalface, seed {seed}"}


def _info(utterance: Utterance, seed: int, voice: str) -> dict:
    return {
        "provider": "presenter", "seed": seed, "voice": voice, "exact": True,
        "phones": [[p.symbol, round(p.start, 4), round(p.end, 4)] for p in utterance.phones],
    }  # fmt: skip
