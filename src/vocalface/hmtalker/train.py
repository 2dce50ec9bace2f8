"""Training of HM-Talker: speech alignment, face stage, mouth stage, fuse stage, pose refinement of the held-out tail.

Stages follow the paper (section 3.4); what the presets change is said in `PAPER.md`. Everything random is drawn from
(seed, step), so that a killed run resumes to the same result.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vocalface.errors import ConfigError, DeviceError
from vocalface.hmtalker import validate
from vocalface.hmtalker.collect import head_of
from vocalface.hmtalker.config import Config, preset
from vocalface.hmtalker.data import prepare
from vocalface.hmtalker.densify import densify_and_prune
from vocalface.hmtalker.frames import View
from vocalface.hmtalker.head import Head
from vocalface.hmtalker.model import alignment_loss, composite, draw_mask, draw_path
from vocalface.hmtalker.scene import draw
from vocalface.hmtalker.state import STAGES
from vocalface.hmtalker.swing import match_amplitude, match_swing
from vocalface.hmtalker.tracking import Tracking
from vocalface.nn.gradient import gradient_l1
from vocalface.nn.ssim import l1_dssim
from vocalface.render import native
from vocalface.training import checkpoint
from vocalface.training.files import check_writable
from vocalface.training.loop import Loop
from vocalface.training.progress import Reporter
from vocalface.types import Observations

STEPS = {"speech": "speech_step", "face": "face_step", "mouth": "mouth_step", "fuse": "fuse_step", "poses": "pose_step"}


class Trainer(Tracking):
    """A training run and its step functions."""

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
        match_amplitude(trainer)
        match_swing(trainer)
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
