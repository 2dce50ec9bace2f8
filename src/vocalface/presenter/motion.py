"""How the presenter moves besides its lips: head, torso, gaze, blinks and brows. All from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vocalface.presenter import articulation
from vocalface.presenter.scene import State, rest_pose
from vocalface.presenter.voice import Phone
from vocalface.types import AU_NAMES, FPS, UPPER_AUS

BLINK = np.array([0.45, 0.92, 1.0, 0.86, 0.55, 0.25, 0.08])  # two frames down, one shut, four up
_HEAD = np.radians([3.4, 2.0, 1.7])  # deviation of yaw, pitch, roll
_LIMIT = np.radians(8.0)


@dataclass(frozen=True)
class Motion:
    """Everything that moves, frame by frame."""

    action_units: np.ndarray  # [T, 17] 0..5
    head_pose: np.ndarray  # [T, 4, 4] world to camera
    torso_pose: np.ndarray  # [T, 4, 4]
    gaze: np.ndarray  # [T, 2] rad in the head's frame
    tongue: np.ndarray  # [T]

    def __len__(self) -> int:
        return len(self.tongue)

    def state(self, frame: int) -> State:
        return State(
            self.action_units[frame], self.head_pose[frame], self.torso_pose[frame], self.gaze[frame],
            float(self.tongue[frame]),
        )  # fmt: skip


def perform(phones: Sequence[Phone], frames: int, *, seed: int = 0) -> Motion:
    """Someone who says `phones`: lips from `articulation`, the rest natural drift."""
    rng = np.random.default_rng([seed, 21])
    units, motions = articulation.articulate(phones, frames, fps=FPS, seed=seed)
    units = np.array(units, np.float32)
    accents = _accents(phones, frames, rng)
    units[:, [AU_NAMES.index(name) for name in UPPER_AUS]] = _upper_face(accents, rng)
    torso_angles = drift(frames, 4.0, rng, 3) * np.radians([1.0, 0.5, 0.5])
    torso_shift = drift(frames, 4.0, rng, 3) * np.array([0.0022, 0.0010, 0.0020])
    breath = np.sin(2 * np.pi * (0.24 * np.arange(frames) / FPS + rng.random()))
    torso_shift[:, 1] += 0.0011 * breath
    angles = _LIMIT * np.tanh(drift(frames, 1.3, rng, 3) * _HEAD / _LIMIT)
    angles[:, 1] += np.radians(1.6) * accents  # a nod with the accent
    shift = torso_shift * 0.8 + drift(frames, 1.8, rng, 3) * np.array([0.0030, 0.0016, 0.0040])
    shift[:, 0] += 0.035 * angles[:, 0] * 0.5  # the head turns about the neck, which lies behind and below it
    return Motion(
        units, _poses(angles, shift), _poses(torso_angles, torso_shift), _gaze(angles, rng),
        np.asarray(motions["tongue"], np.float32),
    )  # fmt: skip


def drift(frames: int, seconds: float, rng: np.random.Generator, channels: int) -> np.ndarray:
    """Smooth wander [frames, channels] of deviation 1 whose memory is about `seconds`."""
    reach = max(2, round(seconds * FPS))
    kernel = np.hanning(2 * reach + 1)
    kernel /= np.sqrt((kernel**2).sum())
    white = rng.normal(size=(frames + 2 * reach, channels))
    return np.stack([np.convolve(white[:, c], kernel, mode="valid") for c in range(channels)], axis=1)


def _poses(angles: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """World-to-camera [T, 4, 4]: yaw (to image right), pitch (down), roll in rad, shift in metres of the room."""
    yaw, pitch, roll = angles.T
    one, zero = np.ones_like(yaw), np.zeros_like(yaw)

    def matrix(*rows):
        return np.stack([np.stack(row, -1) for row in rows], -2)

    about_y = matrix((np.cos(yaw), zero, np.sin(yaw)), (zero, one, zero), (-np.sin(yaw), zero, np.cos(yaw)))
    about_x = matrix((one, zero, zero), (zero, np.cos(pitch), -np.sin(pitch)), (zero, np.sin(pitch), np.cos(pitch)))
    about_z = matrix((np.cos(roll), -np.sin(roll), zero), (np.sin(roll), np.cos(roll), zero), (zero, zero, one))
    rest = rest_pose()
    poses = np.tile(np.eye(4), (len(yaw), 1, 1))
    poses[:, :3, :3] = rest[:3, :3] @ about_y @ about_x @ about_z
    poses[:, :3, 3] = rest[:3, 3] + shift * (1, -1, -1)
    return poses.astype(np.float32)


def _accents(phones: Sequence[Phone], frames: int, rng: np.random.Generator) -> np.ndarray:
    """A hump [frames] on some of the long vowels, where speech is stressed."""
    time = (np.arange(frames) + 0.5) / FPS
    curve, last = np.zeros(frames), -1.0
    vowels = [p for p in phones if p.symbol[0] in "aeiou" and p.end - p.start > 0.09]
    for phone in vowels:
        middle = (phone.start + phone.end) / 2
        if middle - last > 0.7 and rng.random() < 0.4:
            last, width = middle, rng.uniform(0.11, 0.2)
            curve = np.maximum(curve, rng.uniform(0.4, 1.0) * np.exp(-(((time - middle) / width) ** 2)))
    return curve


def _upper_face(accents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Upper-face action units [T, 7] in the order of UPPER_AUS."""
    frames = len(accents)
    slow = drift(frames, 1.2, rng, 6)
    return np.clip(
        np.stack(
            [
                0.1 + 0.35 * slow[:, 0] + 1.5 * accents,  # AU01
                0.2 + 0.35 * slow[:, 1] + 2.0 * accents,  # AU02
                0.1 + 0.5 * slow[:, 2] - 1.0 * accents,  # AU04
                0.1 + 0.3 * slow[:, 3] + 0.8 * accents,  # AU05
                0.3 + 0.5 * slow[:, 4],  # AU06
                0.2 + 0.4 * slow[:, 5],  # AU07
                5 * _blinks(frames, rng),  # AU45
            ],
            axis=1,
        ),
        0,
        5,
    ).astype(np.float32)


def _blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Closure [frames] in 0..1; intervals are log-normal about 3.5 s."""
    closure = np.zeros(frames + len(BLINK))
    at = rng.uniform(0.6, 2.5)
    while (first := int(at * FPS)) < frames:
        closure[first : first + len(BLINK)] = np.maximum(closure[first : first + len(BLINK)], BLINK)
        at += max(0.6, 3.5 * np.exp(rng.normal(0, 0.5)))
    return closure[:frames]


def _gaze(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Eyes [T, 2] that rest on a point near the camera, jump, and make up for the head's turning."""
    frames = len(angles)
    target, at = np.zeros((frames, 2)), 0
    while at < frames:
        hold = int(FPS * np.clip(1.1 * np.exp(rng.normal(0, 0.5)), 0.3, 3))
        target[at : at + hold] = rng.normal(0, np.radians([2.2, 1.2]))
        at += hold
    smooth = target.copy()
    smooth[1:] = 0.7 * target[1:] + 0.3 * target[:-1]  # a jump takes a little over a frame
    return np.clip(smooth - 0.8 * angles[:, :2] * (1, -1), -0.35, 0.35)
