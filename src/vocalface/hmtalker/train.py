"""Training of HM-Talker: speech alignment, face stage, mouth stage, fuse stage, pose refinement of the held-out tail.

Stages follow the paper (section 3.4); what the presets change is said in `PAPER.md`. Everything random is drawn from
(seed, step), so that a killed run resumes to the same result.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vocalface.errors import ConfigError, DeviceError
from vocalface.hmtalker import validate
from vocalface.hmtalker.collect import head_of
from vocalface.hmtalker.config import Config, preset
from vocalface.hmtalker.data import Frame, Material, prepare
from vocalface.hmtalker.densify import densify_and_prune
from vocalface.hmtalker.head import Head
from vocalface.hmtalker.hearing import Teacher, correlations, foretold, window
from vocalface.hmtalker.model import (
    PATHS,
    FaceField,
    MouthField,
    Swing,
    alignment_loss,
    composite,
    draw_mask,
    draw_path,
)
from vocalface.hmtalker.refine import UPPER, refine
from vocalface.hmtalker.scene import Poses, draw, initial_fields, median_face
from vocalface.nn.gradient import gradient_l1
from vocalface.nn.ssim import l1_dssim
from vocalface.render import native
from vocalface.training import checkpoint
from vocalface.training.files import check_writable
from vocalface.training.loop import Loop, SkipStep, finite_gradients
from vocalface.training.progress import Reporter
from vocalface.training.schedule import log_linear, motion_factor
from vocalface.types import FACE, HAIR, LOWER_AUS, MOUTH, UPPER_AUS, Observations

STEPS = {"speech": "speech_step", "face": "face_step", "mouth": "mouth_step", "fuse": "fuse_step", "poses": "pose_step"}
STAGES = tuple(STEPS)
INNER_ABOVE, INNER_BELOW = [82, 13, 312], [87, 14, 317]  # landmarks of the inner lips' middle
PARTING = [LOWER_AUS.index("AU25"), LOWER_AUS.index("AU26")]
LIP_GAUSSIANS = 40  # of either lip, that tell how far it opens


@dataclass
class View:
    """A frame as tensors, cut to a box of the image."""

    index: int
    image: Tensor  # [h, w, 3]
    behind: Tensor  # [h, w, 3]
    alpha: Tensor  # [h, w]
    mouth: Tensor  # [h, w] bool
    face: Tensor  # [h, w] bool
    hair: Tensor  # [h, w] bool
    box: tuple[int, int, int, int]  # of the image, px
    lips: tuple[slice, slice]  # lips_rect within the box


def view_of(
    frame: Frame, material: Material, i: int, lips_only: bool = False, device: torch.device | str = "cpu"
) -> View:
    x0, y0, x1, y1 = material.lips[i]
    bx, by = material.box[:2]
    if lips_only:
        pad = 4
        h, w = frame.labels.shape
        x0, y0, x1, y1 = max(x0 - pad, 0), max(y0 - pad, 0), min(x1 + pad, w), min(y1 + pad, h)
        cut, box = np.s_[y0:y1, x0:x1], (bx + x0, by + y0, bx + x1, by + y1)
        lips = np.s_[:, :]
    else:
        cut, box, lips = np.s_[:, :], material.box, np.s_[y0:y1, x0:x1]

    def tensor(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a[cut])).to(device).float().div_(255)

    labels = torch.from_numpy(np.ascontiguousarray(frame.labels[cut])).to(device)
    image, behind, alpha = tensor(frame.image), tensor(frame.behind), tensor(frame.alpha)
    return View(
        i, image, _hidden(image, behind, alpha), alpha,
        labels == MOUTH, labels == FACE, labels == HAIR, box, lips,
    )  # fmt: skip


def _hidden(image: Tensor, behind: Tensor, alpha: Tensor) -> Tensor:
    """What lies behind the head [h, w, 3], in another colour where the head hides the very same: there a head that is
    transparent would look right, and long hair would end where the torso layer begins to show it too."""
    same = (alpha > 0.9) & ((behind - image).abs().amax(-1) < 3 / 255)
    return torch.where(same[..., None], (image + 0.5) % 1, behind)


@dataclass
class Ahead:
    """What a second thread does for the step that comes next."""

    stage: str
    step: int
    frame: int
    view: Future[View]  # done when the frame's pose and upper face are refined


class Trainer:
    """The state of a training run and its step functions.

    Randomness is drawn on the CPU whatever the device, so that a seed means the same run everywhere (to rounding).
    """

    def __init__(self, material: Material, config: Config, device: torch.device | str = "cpu") -> None:
        self.material, self.config = material, config
        self.device = torch.device("cpu")
        torch.manual_seed(config.seed)
        rng = np.random.default_rng(config.seed)
        dim = material.features.shape[1]
        self.feature_mean = material.features[: material.train].mean(0)
        self.feature_std = material.features[: material.train].std(0) + 1e-3
        heard = np.concatenate([material.features[None], material.noisy])  # the sound as it is comes first
        normal = (heard - self.feature_mean) / self.feature_std
        self.features = torch.from_numpy(normal.clip(-6, 6).astype(np.float32))
        self.explicit = torch.from_numpy(material.explicit)
        self.upper = torch.from_numpy(material.upper.copy())  # which is refined
        self.upper_std = self.upper[: material.train].std(0) + 1e-3
        self.face_net = FaceField(config, dim, material.explicit.shape[1], self.upper.shape[1])
        self.mouth_net = MouthField(config, dim)
        if config.mapper == "expnet":
            self.face_net.mapper.reference.copy_(self.explicit[: material.train].mean(0))
        elif self.face_net.explicit.keep:  # predicted units start at their mean: behind a ReLU a channel could die
            mean = self.explicit[: material.train].mean(0)
            self.face_net.mapper.layers[2].bias.data[-len(mean) :] = mean.clamp_min(0.05)
        self.face, self.mouth = initial_fields(material, config, rng)
        self.poses = Poses(material.poses, material.camera)
        self.extent = camera_extent(material.poses[: material.train])
        self.trainable = np.flatnonzero(material.valid[: material.train])
        self.stage, self.step = STAGES[0], 0  # step within the stage
        self.smooth = 0.0  # running mean of the loss, for the curves
        self.curves: list[list[float]] = []  # stage, step, loss, face Gaussians
        self.lpips = perceptual_loss() if config.lpips_tail else None
        self._easy = incremental_lists(material, self.trainable)
        self._optimisers: dict[str, torch.optim.Optimizer] = {}
        self._grad2d: dict[str, tuple[Tensor, Tensor]] = {}
        self._twin: Trainer | None = None
        self._ahead: Ahead | None = None
        self._tracked = ("", -1)  # stage and step whose frame is refined already
        self.to(device)

    def to(self, device: torch.device | str) -> Trainer:
        """Move everything that pixels pass through; optimisers start afresh, so call it before or after a run."""
        self.device = torch.device(device)
        for name in ("features", "explicit", "upper", "upper_std"):
            setattr(self, name, getattr(self, name).to(self.device))
        for module in (self.face_net, self.mouth_net, self.face, self.mouth, self.poses):
            module.to(self.device)
        if self.lpips is not None:
            self.lpips.to(self.device)
        self._optimisers, self._grad2d, self._twin = {}, {}, None
        self.__dict__.pop("teacher", None)
        return self

    # ------------------------------------------------------------------------------------------------- bookkeeping
    def lengths(self) -> dict[str, int]:
        c = self.config
        held = self.material.frames - self.material.train if c.pose_refine_steps else 0
        return {
            "speech": c.speech_steps, "face": c.face_steps, "mouth": c.mouth_steps, "fuse": c.fuse_steps, "poses": held,
        }  # fmt: skip

    def state(self) -> dict:
        self._take_ahead()
        return {
            "stage": self.stage,
            "step": self.step,
            "tracked": self._tracked[1] if self._tracked[0] == self.stage else -1,
            "smooth": self.smooth,
            "face_net": self.face_net.state_dict(),
            "mouth_net": self.mouth_net.state_dict(),
            "face": self.face.state_dict(),
            "mouth": self.mouth.state_dict(),
            "poses": self.poses.delta,
            "upper": self.upper,
            "optimisers": {k: o.state_dict() for k, o in self._optimisers.items()},
            "grad2d": {k: list(v) for k, v in self._grad2d.items()},
            "curves": np.array(self.curves, np.float64).reshape(-1, 4),
        }

    def restore(self, state: dict) -> None:
        self.stage, self.step, self.smooth = state["stage"], int(state["step"]), float(state["smooth"])
        for name in ("face", "mouth"):
            field = getattr(self, name)
            for key, value in state[name].items():
                getattr(field, key).data = torch.as_tensor(value, device=self.device).clone()
        self.face_net.load_state_dict(state["face_net"])
        self.mouth_net.load_state_dict(state["mouth_net"])
        self._ahead, self._tracked = None, (self.stage, int(state.get("tracked", -1)))
        self.poses.delta.copy_(torch.as_tensor(state["poses"]))
        self.upper.copy_(torch.as_tensor(state["upper"]))
        self.curves = np.asarray(state["curves"]).tolist()
        self._optimisers = {}
        for name, saved in state["optimisers"].items():
            self.optimiser(name).load_state_dict(saved)
        self._grad2d = {
            k: tuple(torch.as_tensor(a, device=self.device).clone() for a in v) for k, v in state["grad2d"].items()
        }

    def generator(self) -> torch.Generator:
        """Randomness of this step alone: a pure function of seed, stage and step."""
        return torch.Generator().manual_seed(
            (self.config.seed * 7 + STAGES.index(self.stage)) * 100_000_007 + self.step
        )

    def noise(self, like: Tensor, gen: torch.Generator) -> Tensor:
        """Standard normal noise of a tensor's shape."""
        return torch.randn(like.shape, generator=gen).to(like.device)

    def view(self, i: int, lips_only: bool = False) -> View:
        return view_of(self.material.read(i), self.material, i, lips_only, self.device)

    def optimiser(self, name: str) -> torch.optim.Optimizer:
        """The optimisers of a stage, made on first use: `gaussians.face`, `motion.mouth`, …"""
        if name in self._optimisers:
            return self._optimisers[name]
        c = self.config
        kind, which = name.split(".")[:2]
        if kind == "gaussians":
            field = getattr(self, which)
            groups = [
                {"params": [field.means], "lr": c.lr_means * self.extent, "name": "means"},
                {"params": [field.sh0], "lr": c.lr_color, "name": "sh0"},
                {"params": [field.shn], "lr": c.lr_color / 20, "name": "shn"},
                {"params": [field.opacities], "lr": c.lr_opacity, "name": "opacities"},
                {"params": [field.scales], "lr": c.lr_scale, "name": "scales"},
                {"params": [field.quats], "lr": c.lr_rotation, "name": "quats"},
                {"params": [field.basis], "lr": c.lr_basis, "name": "basis"},
                {"params": [field.embedding], "lr": c.lr_embedding, "name": "embedding"},
            ]
            groups = [g for g in groups if g["params"][0].numel()]
            made: torch.optim.Optimizer = torch.optim.Adam(groups, eps=1e-15, fused=True)
        else:
            net = self.face_net if which == "face" else self.mouth_net
            grids, attention, speech, rest = [], [], [], []
            lr_speech, lr_attention = c.lr_speech, c.lr_speech if c.speech_steps else c.lr_attention
            for key, p in net.named_parameters():
                if key.startswith("encoder."):
                    grids.append(p)
                elif key.startswith("speech.attention"):
                    attention.append(p)
                elif key.startswith(("speech.", "mapper.")):
                    speech.append(p)
                else:
                    rest.append(p)
            if name.endswith(".align"):
                lr_speech = lr_attention = c.lr_align
            groups = [
                {"params": grids, "lr": c.lr_grid, "weight_decay": 0.0},
                {"params": attention, "lr": lr_attention, "weight_decay": 1e-4},
                {"params": speech, "lr": lr_speech, "weight_decay": c.net_decay},
                {"params": rest, "lr": c.lr_net, "weight_decay": 0.0},
            ]
            made = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-8, fused=True)
        for group in made.param_groups:
            group["initial_lr"] = group["lr"]
        self._optimisers[name] = made
        return made

    def schedule(self, name: str, done: float) -> None:
        """Set the learning rates for `done` in [0, 1] of the stage."""
        for group in self.optimiser(name).param_groups:
            start = group["initial_lr"]
            if name.startswith("gaussians"):
                if group.get("name") == "means":
                    group["lr"] = log_linear(done, start, start * 0.01, 0.9)
                elif self.config.preset != "paper":
                    group["lr"] = start * (1.0 - 0.9 * max(done - 0.5, 0.0) * 2 * 0.9)
            elif self.config.preset == "paper":
                group["lr"] = start * motion_factor(int(done * 50_000))
            else:
                group["lr"] = start * (0.5 * (1 + np.cos(np.pi * done)) * 0.97 + 0.03)

    def pick(self, gen: torch.Generator, extra: np.ndarray | None = None) -> int:
        """A training frame: without replacement within an epoch; from `extra` when it is given and not empty."""
        if extra is not None and len(extra):
            return int(extra[int(torch.randint(len(extra), (), generator=gen))])
        rows = self.trainable
        epoch, at = divmod(self.step, len(rows))
        order = np.random.default_rng([self.config.seed, STAGES.index(self.stage), epoch]).permutation(len(rows))
        return int(rows[order[at]])

    # ------------------------------------------------------------------------------------------------------ inputs
    def windows(self, rows: np.ndarray, copy: int = 0) -> Tensor:
        """Normalised speech windows [..., L, D] of frames `rows`, of the sound or of one of its noisy copies."""
        return window(self.features[copy], rows, self.config.window)

    def any_copy(self, gen: torch.Generator) -> int:
        """The sound itself (0) or one of its noisy copies."""
        return int(torch.randint(len(self.features), (), generator=gen)) if len(self.features) > 1 else 0

    def heard(self, i: int, gen: torch.Generator) -> Tensor:
        """The window of a frame as the stages that see pixels are taught it."""
        window = self.windows(np.array(i), self.any_copy(gen))
        if self.config.pixel_noise:
            window = window + self.config.pixel_noise * self.noise(window, gen)
        return window

    def motion(self, i: int, path: str, gen: torch.Generator | None = None, mask: Tensor | None = None):
        window = self.windows(np.array(i)) if gen is None else self.heard(i, gen)
        upper = self.upper[i]
        if gen is not None and self.config.upper_noise:
            upper = upper + self.config.upper_noise * self.upper_std * self.noise(upper, gen)
        out = self.face_net.motion(window, upper, self.explicit[i], path, mask)
        return out, window

    # ------------------------------------------------------------------------------------------------------- steps
    def advance(self, done: int) -> dict[str, float | str]:
        """Take step number `done` of the whole run."""
        stage, step = self.locate(done)
        if stage == "fuse" and self.stage != "fuse":
            self._optimisers = {}  # joint training starts its moments afresh
        self.stage, self.step = stage, step
        two = self.device.type == "cpu" and any(self._refinements(step))
        with sharing(2 if two else 1):  # see `tracked`
            loss = getattr(self, STEPS[stage])()
        self.smooth = loss if step == 0 else 0.98 * self.smooth + 0.02 * loss
        if step % 20 == 19:
            self.curves.append([STAGES.index(stage), step + 1, self.smooth, len(self.face)])
        return {"stage": stage, "loss": self.smooth}

    def locate(self, done: int) -> tuple[str, int]:
        """Stage and step within it of the run's step `done`."""
        for stage, length in self.lengths().items():
            if done < length:
                return stage, done
            done -= length
        raise IndexError("past the last step")

    def speech_step(self) -> float:
        """CMDM before any pixel: predict the explicit feature from speech, over many frames at once."""
        gen, c = self.generator(), self.config
        length, batch = 64, 6
        limit = max(self.material.train - length, 1)
        starts = torch.randint(limit, (batch,), generator=gen).numpy()
        rows = np.clip(starts[:, None] + np.arange(length), 0, self.material.train - 1)
        window = torch.stack([self.windows(r, self.any_copy(gen)) for r in rows])
        seen = self.explicit[rows]
        if c.teacher:
            share = torch.rand((batch, 1, 1, 1), generator=gen).to(self.device)
            other = torch.randperm(batch, generator=gen).to(self.device)
            window = (1 - share) * window + share * window[other]
            seen = self.teacher(window)
        window = window + c.feature_noise * self.noise(window, gen)
        motion = self.face_net.motion(window, self.upper[rows], seen, "audio")
        loss = alignment_loss(motion.c_ea, motion.c_ev, c.align_detach)
        if self.face_net.explicit.keep:
            said = motion.c_ea[..., -seen.shape[-1] :]
            spread = self.explicit[: self.material.train].std(0) + 0.05
            a, b = (seen - seen.mean((0, 1))) / spread, (said - said.mean((0, 1))) / spread
            r = (a * b).mean((0, 1)) / ((a * a).mean((0, 1)) * (b * b).mean((0, 1)) + 1e-6).sqrt()
            loss = loss + ((said - seen) / spread).square().mean() + 0.5 * (1 - r).mean()
        self._update(loss, ["motion.face.align"], self.step / c.speech_steps)
        return loss.item()

    @functools.cached_property
    def teacher(self) -> Teacher:
        """What the training frames say of speech and the explicit feature."""
        copies = range(len(self.features))
        windows = torch.cat([self.windows(self.trainable, k) for k in copies])
        return Teacher(windows, self.explicit[self.trainable].repeat(len(copies), 1))

    @functools.cached_property
    def told(self) -> np.ndarray:
        """How well speech tells each number of the explicit feature where the rest of the clip foretells it: r [E]."""
        seen = self.explicit[self.trainable]
        return correlations(foretold(self.windows(self.trainable), seen), seen.cpu().numpy())

    def face_step(self) -> float:
        c, gen = self.config, self.generator()
        done = self.step / max(c.face_steps, 1)
        warm = self.step < c.warmup_steps
        i, view = self.tracked(gen)
        drop_hair = not warm and self.step % 7 != 0 and done < 0.92 and c.attention_weight > 0 and c.preset == "paper"
        delta = motion = None
        if not warm:
            path = draw_path(c, gen, self.step)
            mask = draw_mask(c, gen).to(self.device) if path == "masked" else None
            motion, _ = self.motion(i, path, gen, mask)
            regions = self.face_net.regions(self.face)
            c_f = motion.c_f
            if c.condition_noise:
                c_f = c_f + c.condition_noise * self.noise(c_f, gen) * c_f.detach().abs().mean()
            delta = self.face_net.deform(regions, c_f, motion.c_u)
        pose = self.poses.at(i)
        degree = min(c.sh_degree, self.step // 1000)
        gaussians = self.face.gaussians(delta, self._eye(pose), degree)
        grad2d = self._screen("face", len(self.face)) if c.densify_until else None
        image, alpha = draw(gaussians, pose, self.material.camera, view.box, screen_gradient=grad2d)
        shown = image + (1 - alpha)[..., None] * view.behind
        ignore = view.mouth | view.hair if drop_hair else view.mouth
        shown = torch.where(ignore[..., None], view.image, shown)
        loss = self._pixels(shown, view, done)
        target = view.alpha * ~view.mouth
        known = ~view.hair if drop_hair else torch.ones_like(view.mouth)
        loss = loss + c.mask_weight * ((alpha - target).abs() * known).mean()
        # the hole of the mouth is a thousandth of the box: weigh it by itself, or the face grows over the teeth
        if view.mouth.any():
            loss = loss + c.mask_weight * 0.1 * alpha[view.mouth].mean()
        if motion is not None:
            loss = loss + c.align_weight * alignment_loss(motion.c_ea, motion.c_ev, c.align_detach)
            loss = loss + c.motion_l1 * sum(d.abs().mean() for d in (delta.means, delta.quats, delta.scales))
            by_attention = c.attention_weight > 0 and c.deformation == "mlp"
            if by_attention and self.step % (1 if c.preset == "paper" else 8) == 0:
                loss = loss + self._attention(regions, gaussians, pose, view)
        names = ["gaussians.face"] if warm else ["gaussians.face", "motion.face"]
        self._update(loss, names, done)
        if c.densify_until and c.densify_from < self.step <= c.densify_until and self.step % c.densify_every == 0:
            self._densify("face", c.densify_gradient)
        return loss.item()

    def mouth_step(self) -> float:
        c, gen = self.config, self.generator()
        done = self.step / max(c.mouth_steps, 1)
        warm = self.step < c.warmup_steps
        open_frames = self._easy.open_frames
        easy = open_frames if warm or self.step % 7 == 0 else self._easy.visible
        i = self.pick(gen, easy)
        view = self.view(i, lips_only=True)
        window = self.heard(i, gen)
        delta = None
        if not warm:
            delta = self.mouth_net.deform(
                self.mouth_net.encoder(self.mouth.means.detach()), self.mouth_net.speech(window)
            )
        pose = self.poses.at(i)
        pose = (pose[0].detach(), pose[1].detach())
        grad2d = self._screen("mouth", len(self.mouth)) if c.densify_until else None
        gaussians = self.mouth.gaussians(delta, self._eye(pose), min(c.sh_degree, self.step // 1000))
        image, alpha = draw(gaussians, pose, self.material.camera, view.box, screen_gradient=grad2d)
        shown = torch.where(view.mouth[..., None], image, view.image)  # outside the mouth anything goes: lips cover it
        loss = l1_dssim(shown, view.image, c.ssim_weight)
        if delta is not None:
            loss = loss + c.motion_l1 * delta.means.abs().mean()
        if view.mouth.any():
            loss = loss + c.mask_weight * 10 * (1 - alpha[view.mouth]).mean()
        self._update(loss, ["gaussians.mouth"] if warm else ["gaussians.mouth", "motion.mouth"], done)
        if c.densify_until and c.densify_from < self.step <= c.densify_until and self.step % c.densify_every == 0:
            self._densify("mouth", c.densify_gradient_mouth)
        return loss.item()

    def fuse_step(self) -> float:
        c, gen = self.config, self.generator()
        done = self.step / max(c.fuse_steps, 1)
        i, view = self.tracked(gen)
        path = draw_path(c, gen, self.step) if c.fuse_motion else "audio"
        mask = draw_mask(c, gen).to(self.device) if path == "masked" else None
        with torch.set_grad_enabled(c.fuse_motion):
            motion, window = self.motion(i, path, gen, mask)
            c_f = motion.c_f
            if c.condition_noise and c.fuse_motion:
                c_f = c_f + c.condition_noise * self.noise(c_f, gen) * c_f.detach().abs().mean()
            delta = self.face_net.deform(self.face_net.regions(self.face), c_f, motion.c_u)
            mouth_delta = self.mouth_net.deform(
                self.mouth_net.encoder(self.mouth.means.detach()), self.mouth_net.speech(window)
            )
        pose = self.poses.at(i)
        eye = self._eye(pose)
        image, alpha = draw(self.face.gaussians(delta, eye, c.sh_degree), pose, self.material.camera, view.box)
        mouth_gaussians = self.mouth.gaussians(mouth_delta, eye, c.sh_degree)
        lips_box = self._lips_box(i)
        mouth, mouth_alpha = draw(mouth_gaussians, pose, self.material.camera, lips_box)
        mouth, mouth_alpha = pad_to(view.box, lips_box, mouth, mouth_alpha)
        shown = composite(image, alpha, mouth, mouth_alpha, view.behind)
        loss = self._pixels(shown, view, done)
        if c.fuse_motion:
            loss = loss + c.mask_weight * (alpha - view.alpha)[~view.mouth].abs().mean()
            loss = loss + c.align_weight * alignment_loss(motion.c_ea, motion.c_ev, c.align_detach)
            loss = loss + c.motion_l1 * mouth_delta.means.abs().mean()
            if view.mouth.any():
                loss = loss + c.mask_weight * 0.1 * alpha[view.mouth].mean()
            names = ["gaussians.face.fuse", "gaussians.mouth.fuse", "motion.face.fuse", "motion.mouth.fuse"]
        else:
            names = ["gaussians.face.fuse", "gaussians.mouth.fuse"]
        self._update(loss, names, done, frozen=not c.fuse_motion)
        return loss.item()

    def pose_step(self) -> float:
        """Refine one held-out frame's pose and upper face through the rasteriser, on pixels above the nose only."""
        i = self.material.train + self.step
        if not self.material.valid[i]:
            return 0.0
        view = self.view(i)
        loss = self.refine_pose(i, view, self.config.pose_refine_steps)
        self.refine_upper(i, view, "audio", self.config.upper_steps)
        return loss

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

    # ---------------------------------------------------------------------------------------------- training frames
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

    @torch.no_grad()
    def match_amplitude(self, limit: float = 1.4) -> Tensor | None:
        """Give predicted action units the spread of the seen ones over the training frames; returns the gains [10].

        Regression under noisy features shrinks towards the mean, and lips then move too little. The gain sits in the
        mapper's last layer, about each unit's mean, between 1 and `limit`. What speech hardly tells (correlation under
        0.5 where the rest of the clip foretells it) stays small: there the mean is the better guess.
        """
        field = self.face_net
        if self.config.mapper != "a2am" or not field.explicit.keep:
            return None
        rows = self.trainable
        seen = self.explicit[rows]
        count = seen.shape[1]
        said = field.motion(self.windows(rows), self.upper[rows], seen, "audio").c_ea[:, -count:]
        gain = (seen.std(0) / (said.std(0) + 1e-3)).clamp(1, limit)
        gain[(said.std(0) < 0.05) | (torch.from_numpy(self.told).to(gain) < 0.5)] = 1
        last = field.mapper.layers[2]
        last.weight[-count:] *= gain[:, None]
        last.bias[-count:] = gain * last.bias[-count:] + (1 - gain) * said.mean(0)
        return gain

    @torch.no_grad()
    def match_swing(self, limit: float = 1.6) -> Swing:
        """Let the lips of speech open nearly as far as those of seen action units, over the training frames.

        What is spoken is fused from predicted units and from speech itself, and the second shrinks towards the mean as
        well. The gain is that of the opening: how much further apart the inner lips' Gaussians move, 1 to `limit`.
        Pictures are nearest to the truth when the swing is r times the seen one, r how well speech tells it (of AU25
        and AU26, where the rest of the clip foretells them); lips look alive when it is whole. Between both, sqrt(r).
        """
        m, field = self.material, self.face_net
        field.swing = None
        rows = self.trainable[:: max(len(self.trainable) // 400, 1)]
        lips = median_face(m, rows)
        means = self.face.means.detach()

        def near(points: list[int]) -> Tensor:
            at = torch.from_numpy(lips[points]).to(means)
            return torch.cdist(means[:, :2], at[:, :2]).min(1).values.topk(LIP_GAUSSIANS, largest=False).indices

        regions = field.regions(self.face)
        above, below = ([r[near(points)] for r in regions] for points in (INNER_ABOVE, INNER_BELOW))

        def spread(c_f: Tensor) -> float:
            opening = [
                field.deform(above, c, self.upper[i]).means[:, 1].mean()
                - field.deform(below, c, self.upper[i]).means[:, 1].mean()
                for c, i in zip(c_f, rows)
            ]
            return float(torch.stack(opening).std())

        motion = {p: field.motion(self.windows(rows), self.upper[rows], self.explicit[rows], p) for p in PATHS[::2]}
        said, seen = motion["audio"].c_f, spread(motion["vanilla"].c_f)
        if self.config.explicit == "au":
            seen *= float(np.sqrt(np.clip(self.told[PARTING].mean(), 0.25, 1)))
        swing = Swing(1.0, said.mean(0))
        for _ in range(3):  # the field is no linear one
            swing.gain = float(np.clip(swing.gain * seen / (spread(swing(said)) + 1e-9), 1, limit))
        field.swing = swing
        return swing

    # ------------------------------------------------------------------------------------------------------- parts
    def _pixels(self, shown: Tensor, view: View, done: float) -> Tensor:
        c = self.config
        loss = l1_dssim(shown, view.image, c.ssim_weight)
        if c.lips_weight > 1:
            lips = view.lips
            share = shown[lips].numel() / shown.numel()
            if share > 0:
                loss = loss + (c.lips_weight - 1) * share * l1_dssim(shown[lips], view.image[lips], c.ssim_weight)
        if c.lpips_tail and done > 1 - c.lpips_tail / max(c.face_steps, 1):
            if self.lpips is not None:
                loss = loss + c.lpips_weight * self.lpips(shown, view.image).mean()
            else:
                loss = loss + c.lpips_weight * gradient_l1(shown, view.image)
        return loss

    def _attention(self, regions, gaussians, pose, view: View) -> Tensor:
        """Keep the expression's attention off the lips, and both off the hair (splatted with fixed geometry)."""
        _, lower, upper = regions
        colors = torch.stack([lower.norm(dim=-1), upper.norm(dim=-1)], dim=-1)
        fixed = type(gaussians)(
            gaussians.means.detach(), gaussians.quats.detach(), gaussians.scales.detach(),
            gaussians.opacities.detach(), colors,
        )  # fmt: skip
        pose = (pose[0].detach(), pose[1].detach())
        maps, _ = draw(fixed, pose, self.material.camera, view.box)
        loss = maps[..., 1][view.lips].mean() if maps[..., 1][view.lips].numel() else maps.sum() * 0
        if view.hair.any():
            loss = loss + maps[..., 0][view.hair].mean() + maps[..., 1][view.hair].mean()
        return self.config.attention_weight * loss

    def _lips_box(self, i: int) -> tuple[int, int, int, int]:
        """Where mouth Gaussians may show: lips_rect, padded, inside the head's box; image px."""
        bx0, by0, bx1, by1 = self.material.box
        x0, y0, x1, y1 = self.material.lips[i]
        pad = 4
        return max(bx0, bx0 + x0 - pad), max(by0, by0 + y0 - pad), min(bx1, bx0 + x1 + pad), min(by1, by0 + y1 + pad)

    def _eye(self, pose: tuple[Tensor, Tensor]) -> Tensor:
        r, t = pose
        return -(r.T @ t).detach()

    def _screen(self, name: str, n: int) -> Tensor:
        zeros = torch.zeros(n, 3, device=self.device)
        total, _ = self._grad2d.setdefault(name, (zeros[:, :2].clone(), zeros[:, 2].clone()))
        self._grad2d[name][1].add_(1)
        return total

    def _densify(self, name: str, threshold: float) -> None:
        field = getattr(self, name)
        total, count = self._grad2d.pop(name)
        c = self.config
        if len(field) < c.max_gaussians:
            least = 0.05 + 0.25 * self.step / max(c.densify_until, 1)
            half = self.material.camera.width / 2  # the published threshold is in normalised device units
            densify_and_prune(
                field, self.optimiser(f"gaussians.{name}"), total.norm(dim=-1) * half / count.clamp_min(1), threshold,
                min_opacity=min(least, 0.3), extent=self.extent, percent_dense=c.percent_dense,
                generator=self.generator(), limit=c.max_gaussians,
            )  # fmt: skip

    def _update(self, loss: Tensor, names: list[str], done: float = 0.0, frozen: bool = False) -> None:
        """Backward and one step of the named optimisers; a non-finite gradient skips the step."""
        optimisers = [self.optimiser(n) for n in names]
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if not finite_gradients(p for o in optimisers for g in o.param_groups for p in g["params"]):
            raise SkipStep("gradients are not finite")
        for name, optimiser in zip(names, optimisers):
            self.schedule(name, done)
            if name.startswith("motion"):
                params = [p for g in optimiser.param_groups for p in g["params"]]
                torch.nn.utils.clip_grad_norm_(params, 1.0)
            if frozen:  # the paper's fuse stage: colour of both fields and opacity of the face
                for group in optimiser.param_groups:
                    learns = group["name"] in ("sh0", "shn") or (group["name"] == "opacities" and "face" in name)
                    group["lr"] = (1e-3 if group["name"] == "opacities" else group["lr"]) if learns else 0.0
                    if not learns:
                        for p in group["params"]:
                            p.grad = None
            elif name.endswith(".fuse"):
                for group in optimiser.param_groups:
                    group["lr"] *= 0.5
            optimiser.step()


@contextlib.contextmanager
def sharing(users: int) -> Iterator[None]:
    """While several threads of this process work: each draws, and multiplies matrices, with its part of the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // users))
    try:
        with native.shared(users):
            yield
    finally:
        torch.set_num_threads(threads)


# ----------------------------------------------------------------------------------------------------- frame selection
@dataclass
class Incremental:
    """Frame lists for the incremental schedule, computed once: a request always gets frames (the nearest if none)."""

    rows: np.ndarray
    gap: np.ndarray
    au45: np.ndarray
    open_frames: np.ndarray
    visible: np.ndarray

    def _near(self, values: np.ndarray, low: float, high: float) -> np.ndarray:
        inside = self.rows[(values >= low) & (values <= high)]
        if len(inside):
            return inside
        return self.rows[[int(np.abs(values - (low + high) / 2).argmin())]]

    def opening(self, done: float) -> np.ndarray:
        """Frames whose mouth opening lies in a window that slides from small to large."""
        low, high = float(self.gap.min()), float(self.gap.max())
        low = low + 0.2 * (high - low)
        centre = low + (high - low) * done
        half = 0.2 * (high - low)
        return self._near(self.gap, centre - half, centre + half)

    def blink(self, done: float) -> np.ndarray:
        return self._near(self.au45 / 2, done - 0.15, done + 0.3)


def incremental_lists(material: Material, rows: np.ndarray) -> Incremental:
    gap = material.gap[rows]
    order = np.argsort(-gap)
    return Incremental(
        rows,
        gap,
        material.upper[rows, 6],
        rows[order[: max(1, len(rows) // 20)]],
        rows[order[: max(1, len(rows) // 2)]],
    )


def perceptual_loss():
    """LPIPS (AlexNet) when its trunk and heads are on this machine; None otherwise, and `gradient_l1` stands in."""
    from vocalface import assets
    from vocalface.nn import lpips

    return lpips.load(assets.find("lpips/alexnet-owt-7be5be79.pth"), assets.find("lpips/lpips_lin_v0.1_alex.pth"))[0]


def camera_extent(poses: np.ndarray) -> float:
    """1.1 x the largest distance of a camera from their mean, at least 0.1 m (a still head would stop learning)."""
    centres = -np.einsum("tji,tj->ti", poses[:, :3, :3], poses[:, :3, 3])
    return max(0.1, 1.1 * float(np.linalg.norm(centres - centres.mean(0), axis=1).max()))


def pad_to(box: tuple, inner: tuple, image: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Place a drawing of box `inner` into the larger `box`, empty elsewhere."""
    left, top, right, bottom = inner[0] - box[0], inner[1] - box[1], box[2] - inner[2], box[3] - inner[3]
    return F.pad(image, (0, 0, left, right, top, bottom)), F.pad(alpha, (left, right, top, bottom))


# ----------------------------------------------------------------------------------------------------------------- run
def run(trainer: Trainer, folder: Path, progress=None, start: int = 0, stop: int | None = None) -> None:
    """Every step from `start` to `stop` (default: all); checkpoints go to `folder`."""

    def save(done: int) -> None:
        checkpoint.save(folder, done, trainer.state(), {"config": trainer.config.to_dict()})

    total = sum(trainer.lengths().values())
    Loop(
        total if stop is None else stop, trainer.advance, save_fn=save, progress=progress,
        checkpoint_every_seconds=trainer.config.checkpoint_seconds,
    ).run(start)  # fmt: skip


def train(
    obs: Observations,
    output: Path | str,
    *,
    config: Config | str = "fast",
    device: str = "auto",
    resume: bool = True,
    consent: str | None = None,
    work: Path | str | None = None,
    keep_work: bool = False,
    progress=None,
    overrides: dict | None = None,
) -> Head:
    """Train a head on `obs` and write it to `output` (a `.vface` file).

    Args:
        config: a preset's name or a Config; `overrides` change single fields of it.
        device: auto (the GPU if there is one), cpu or cuda.
        resume: go on from the checkpoint of an interrupted run of the same footage and configuration.
        consent: how the person agreed, in the user's words; stored in the head.
        work: folder for the frame file and checkpoints (default: beside the output); removed at the end.

    Raises:
        ConfigError, DeviceError, MediaError, ObservationsError, OutputError: see their three lines.
    """
    output = Path(output)
    config = preset(config) if isinstance(config, str) else config
    if overrides:
        config = config.replace(**overrides)
    place = choose_device(device)
    if output.suffix != ".vface":
        raise ConfigError("a head is a .vface file", output, f"use -o {output.with_suffix('.vface').name}")
    check_writable(output)
    work = Path(work) if work else output.with_name(f".{output.stem}.work")
    progress = progress or Reporter(enabled=False)
    began = time.monotonic()
    material = prepare(obs, config, work, progress=progress.count)
    trainer = Trainer(material, config, place)
    key = hashlib.sha256(repr((obs.clip_hash, config, material.frames)).encode()).hexdigest()[:16]
    states = work / f"run-{key}"
    found = checkpoint.latest(states) if resume else None
    if found:
        trainer.restore(found[1])
    else:
        shutil.rmtree(states, ignore_errors=True)
    run(trainer, states, progress.start(sum(trainer.lengths().values()), "training"), found[0] if found else 0)
    trainer.to("cpu")  # what follows is small, and a head is judged where it will speak
    if config.match_amplitude:
        trainer.match_amplitude()
        trainer.match_swing()
    head = head_of(trainer, obs, consent=consent, seconds=time.monotonic() - began, progress=progress.count)
    result = validate.validate(trainer, obs, head, progress)
    head = head.with_metrics(result.metrics)
    head.save(output)
    validate.write_report(result, head, output.with_suffix(".report.html"))
    progress.close()
    if not keep_work:
        shutil.rmtree(work, ignore_errors=True)
    return head


def choose_device(device: str) -> torch.device:
    """Where to train. Raises DeviceError for cuda without a GPU, ConfigError for an unknown name."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}", "--device", "use auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "no CUDA device is visible to PyTorch", "--device cuda", "use --device cpu, or run `vocalface doctor`"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
