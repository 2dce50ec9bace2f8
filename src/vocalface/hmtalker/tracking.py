"""What the tracker says of a frame refined while training: its pose and its upper face, one frame ahead."""

from __future__ import annotations

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vocalface.hmtalker.config import Config
from vocalface.hmtalker.data import Material
from vocalface.hmtalker.frames import View
from vocalface.hmtalker.refine import UPPER, refine
from vocalface.hmtalker.scene import draw
from vocalface.hmtalker.state import Run
from vocalface.types import UPPER_AUS


@dataclass
class Ahead:
    """What a second thread does for the step that comes next."""

    stage: str
    step: int
    frame: int
    view: Future[View]  # done when the frame's pose and upper face are refined


class Tracking(Run):
    """A run that refines the frames which it learns from, or is judged by."""

    def __init__(self, material: Material, config: Config, device: torch.device | str = "cpu") -> None:
        self._ahead: Ahead | None = None
        self._tracked = ("", -1)  # stage and step whose frame is refined already
        super().__init__(material, config, device)

    def to(self, device: torch.device | str) -> Tracking:
        self._twin: Tracking | None = None
        return super().to(device)

    def state(self) -> dict:
        self._take_ahead()
        return super().state() | {"tracked": self._tracked[1] if self._tracked[0] == self.stage else -1}

    def restore(self, state: dict) -> None:
        super().restore(state)
        self._ahead, self._tracked = None, (self.stage, int(state.get("tracked", -1)))

    def tracked(self, gen: torch.Generator) -> tuple[int, View]:
        """The frame that this step learns from and its pixels; its pose, and its upper face, are refined before they
        teach the field: taught under wrong poses it is blurred.

        That is as much work as the step itself. So a second thread does it for the next step, with a twin whose field
        stays as it stood before this one: a frame is refined by the field of one step ago, in every run.
        """
        self._take_ahead()
        i, ahead, self._ahead = self._frame(gen), self._ahead, None
        if ahead is not None and (ahead.stage, ahead.step) == (self.stage, self.step):
            view = ahead.view.result()
        else:  # a stage begins, or a run that was interrupted
            view = self.view(i)
            if self._tracked != (self.stage, self.step):
                self._track(i, view)
        if self.step + 1 < self.lengths()[self.stage] and any(self._refinements(self.step + 1)):
            self._ahead = self._look_ahead()
        return i, view

    def _frame(self, gen: torch.Generator) -> int:
        """The frame that a step of the face's or the fuse stage learns from."""
        c, easy = self.config, None
        done = self.step / max(c.face_steps, 1)
        if self.stage == "face" and self.step % 15 == 0 and done < 0.8:
            easy = self._easy.opening(done) if self.step < c.warmup_steps else self._easy.blink(done)
        return self.pick(gen, easy)

    def _refinements(self, step: int) -> tuple[int, int]:
        """Gauss-Newton steps on the pose and on the upper face of the frame of a step of this stage.

        Either takes as long as the step itself, so that no step waits for both: in the fuse stage a frame's upper face
        is refined at its first visit, its pose at the others.
        """
        c = self.config
        if self.stage == "face":
            return (c.pose_steps if step >= c.warmup_steps else 0), 0
        if self.stage == "fuse" and c.fuse_motion:
            upper = min(c.upper_steps, 1) if step < len(self.trainable) else 0
            return (0, upper) if upper else (c.pose_steps, 0)
        return 0, 0

    def _track(self, i: int, view: View) -> View:
        """Refine what a training frame's tracker said."""
        pose, upper = self._refinements(self.step)
        if pose:
            self._refine(i, view, "vanilla", ~view.mouth, pose)
        self.refine_upper(i, view, "vanilla", upper)
        return view

    def _look_ahead(self) -> Ahead:
        """Sends the twin, with the field of now, to the frame of the next step."""
        if self._twin is None:
            self._twin = twin = copy.copy(self)
            twin.face, twin.face_net, twin.poses = map(copy.deepcopy, (self.face, self.face_net, self.poses))
            twin.upper, twin._pool = self.upper.clone(), ThreadPoolExecutor(1)
        twin = self._twin
        for mine, its in ((self.face, twin.face), (self.face_net, twin.face_net)):
            for new, old in zip(mine.parameters(), its.parameters()):
                old.data = new.detach().clone()  # not in place: what the field has of Gaussians grows and shrinks
        twin.stage, twin.step = self.stage, self.step + 1
        i = twin._frame(twin.generator())
        twin.poses.delta[i], twin.upper[i] = self.poses.delta[i], self.upper[i]
        if self.device.type == "cpu":
            view = twin._pool.submit(lambda: twin._track(i, twin.view(i)))
        else:  # one queue, one after another
            view = Future()
            view.set_result(twin._track(i, twin.view(i)))
        return Ahead(twin.stage, twin.step, i, view)

    def _take_ahead(self) -> None:
        """What was refined ahead becomes this trainer's."""
        ahead = self._ahead
        if ahead is None:
            return
        ahead.view.result()
        self.poses.delta[ahead.frame] = self._twin.poses.delta[ahead.frame]
        self.upper[ahead.frame] = self._twin.upper[ahead.frame]
        self._tracked = (ahead.stage, ahead.step)

    def refine_pose(self, i: int, view: View, iterations: int) -> float:
        rows = torch.arange(view.image.shape[0], device=self.device)[:, None] < self._nose(i)
        # Start where the last frame ended: the tracker's depth error drifts slowly.
        if i > 0 and not self.poses.delta[i].any():
            self.poses.delta[i] = self.poses.delta[i - 1]
        return self._refine(i, view, "audio", rows & ~view.mouth, iterations)

    @torch.no_grad()
    def refine_upper(self, i: int, view: View, path: str, iterations: int) -> None:
        """Refine the upper face's condition of frame i on pixels above the nose's tip alone: lips have no say in it.

        Landmarks tell of a brow or a lid to a pixel or so, which is most of what a held-out upper face gets wrong.
        """
        height = int(np.clip(self._nose(i), 0, len(view.image)))
        if not iterations or height < 8:
            return
        c, camera, pose = self.config, self.material.camera, self.poses.at(i)
        x0, y0, x1, _ = view.box
        box, behind, keep = (x0, y0, x1, y0 + height), view.behind[:height], ~view.mouth[:height]
        # Only Gaussians above the nose, and 2 cm below it, show there.
        _, y, z = (self.face.means @ pose[0].T + pose[1]).T
        rows = (y < (self.material.landmarks[i, 2, 1] - camera.cy) / camera.fy * z + 0.02).nonzero()[:, 0]
        regions = tuple(part[rows] for part in self.face_net.regions(self.face))
        motion, _ = self.motion(i, path)
        deform = self.face_net.deform_upper(regions, motion.c_f)
        moved = self.face.movable(self._eye(pose), c.sh_degree, rows)
        fixed = 0 if c.upper == "au" else len(UPPER_AUS)  # components of the eyes' shape tell more than units do

        def picture(correction: Tensor) -> Tensor:
            c_u = motion.c_u + self.upper_std * F.pad(correction, (fixed, 0))
            image, alpha = draw(moved(deform(c_u)), pose, camera, box)
            return torch.addcmul(image, (1 - alpha)[..., None], behind)

        start = torch.zeros_like(self.upper_std[fixed:])
        found, _ = refine(picture, view.image[:height], keep, start, iterations, UPPER)
        self.upper[i] += self.upper_std * F.pad(found, (fixed, 0))

    def _nose(self, i: int) -> float:
        """Row of the nose's tip in the head's box: below it speech moves pixels."""
        return float(self.material.landmarks[i, 2, 1] - self.material.box[1])

    @torch.no_grad()
    def _refine(self, i: int, view: View, path: str, keep: Tensor, iterations: int) -> float:
        motion, _ = self.motion(i, path)
        delta = self.face_net.deform(self.face_net.regions(self.face), motion.c_f, motion.c_u)
        gaussians = self.face.gaussians(delta, self._eye(self.poses.at(i)), self.config.sh_degree)

        def picture(correction: Tensor) -> Tensor:
            image, alpha = draw(gaussians, self.poses.at(i, correction), self.material.camera, view.box)
            return torch.addcmul(image, (1 - alpha)[..., None], view.behind)

        self.poses.delta[i], error = refine(picture, view.image, keep, self.poses.delta[i].clone(), iterations)
        return error
