"""What a training run holds: inputs, fields, networks, optimisers, and the state from which it resumes."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from vocalface.hmtalker.config import Config
from vocalface.hmtalker.data import Material
from vocalface.hmtalker.frames import View, incremental_lists, view_of
from vocalface.hmtalker.hearing import Teacher, correlations, foretold, window
from vocalface.hmtalker.model import FaceField, MouthField
from vocalface.hmtalker.scene import Poses, initial_fields
from vocalface.training.loop import SkipStep, finite_gradients
from vocalface.training.schedule import log_linear, motion_factor

STAGES = ("speech", "face", "mouth", "fuse", "poses")


class Run:
    """The state of a training run.

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
        self.to(device)

    def to(self, device: torch.device | str) -> Run:
        """Move everything that pixels pass through; optimisers start afresh, so call it before or after a run."""
        self.device = torch.device(device)
        for name in ("features", "explicit", "upper", "upper_std"):
            setattr(self, name, getattr(self, name).to(self.device))
        for module in (self.face_net, self.mouth_net, self.face, self.mouth, self.poses):
            module.to(self.device)
        if self.lpips is not None:
            self.lpips.to(self.device)
        self._optimisers, self._grad2d = {}, {}
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
        return {
            "stage": self.stage,
            "step": self.step,
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

    def _eye(self, pose: tuple[Tensor, Tensor]) -> Tensor:
        r, t = pose
        return -(r.T @ t).detach()

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


def perceptual_loss():
    """LPIPS (AlexNet) when its trunk and heads are on this machine; None otherwise, and `gradient_l1` stands in."""
    from vocalface import assets
    from vocalface.nn import lpips

    return lpips.load(assets.find("lpips/alexnet-owt-7be5be79.pth"), assets.find("lpips/lpips_lin_v0.1_alex.pth"))[0]


def camera_extent(poses: np.ndarray) -> float:
    """1.1 x the largest distance of a camera from their mean, at least 0.1 m (a still head would stop learning)."""
    centres = -np.einsum("tji,tj->ti", poses[:, :3, :3], poses[:, :3, 3])
    return max(0.1, 1.1 * float(np.linalg.norm(centres - centres.mean(0), axis=1).max()))
