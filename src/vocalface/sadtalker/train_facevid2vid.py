"""Training of the renderer, stage 1: face-vid2vid with a SPADE decoder (SadTalker, section 3.3; Wang et al., 2021).

Two frames of one run: the first is to look like the second. Keypoints, head pose and expression are found by the
networks themselves; the angles of the run's coefficients stand for the head pose network of the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vocalface.errors import ConfigError, ObservationsError
from vocalface.metrics.image import psnr
from vocalface.sadtalker import losses, train_report
from vocalface.sadtalker.discriminator import MultiScaleDiscriminator
from vocalface.sadtalker.facevid2vid import OcclusionAwareSPADEGenerator
from vocalface.sadtalker.keypoints import HEEstimator, KPDetector, transform
from vocalface.training.distributed import World, alike, average, average_gradients, rows, synchronise
from vocalface.training.loop import step_optimizers
from vocalface.training.rng import at, torch_at


@dataclass(frozen=True)
class FaceVid2VidConfig:
    """Defaults are the published configuration's (batch: of all processes together)."""

    steps: int = 625_000  # 200 rounds over 100,000 clips
    batch: int = 32
    lr: float = 2e-4
    decay_at: float = 0.9  # share of the steps after which lr is a tenth
    size: int = 256  # px
    base: int = 64  # width of the generator's first layer
    volume: int = 32
    depth: int = 16
    blocks: int = 5
    keypoint_base: int = 32
    pose_base: int = 64
    critic_base: int = 32
    critic_blocks: int = 4
    perceptual: float = 10.0
    gan: float = 1.0
    matching: float = 10.0
    equivariance: float = 10.0
    prior: float = 10.0
    pose: float = 20.0
    deformation: float = 5.0
    augment: bool = True
    seed: int = 0
    checkpoint_seconds: float = 900.0  # 2 GB each at full size

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.lr <= 0:
            raise ConfigError("steps, batch and lr are positive", "FaceVid2VidConfig", "see its defaults")
        if self.size % (4 * 2**self.blocks):
            raise ConfigError(
                f"{self.size} px are not divisible by {4 * 2**self.blocks}", "size and blocks", "use 256 or 512 px"
            )


PRESETS = {
    "official": FaceVid2VidConfig(),
    "tiny": FaceVid2VidConfig(
        steps=40, batch=2, lr=1e-3, size=64, base=8, volume=4, depth=4, blocks=2, keypoint_base=8, pose_base=8,
        critic_base=8, critic_blocks=2,
    ),
}  # fmt: skip


class Faces(Protocol):
    """A run of frames, as `observe.corpus.Run`."""

    def __len__(self) -> int: ...
    def face(self, frame: int) -> np.ndarray: ...  # [S, S, 3] uint8
    @property
    def coefficients(self) -> np.ndarray: ...  # [T, 73]


def angles(coefficients: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll [..., 3] in degrees, as `keypoints.rotation` takes them, of coefficients [..., 73].

    The face model turns by Rz Ry Rx with y up and z to the camera; the renderer by Rx Ry Rz with y down and z away.
    """
    from scipy.spatial.transform import Rotation

    flip = np.diag([1.0, -1.0, -1.0])
    turned = Rotation.from_euler("xyz", np.asarray(coefficients[..., 64:67], np.float64)).as_matrix()
    pitch, yaw, roll = np.moveaxis(Rotation.from_matrix(flip @ turned @ flip).as_euler("XYZ", degrees=True), -1, 0)
    return np.stack([yaw, pitch, roll], -1).astype(np.float32)


def picture(face: np.ndarray, size: int) -> np.ndarray:
    """[S, S, 3] uint8 -> [3, size, size] float32 in [0, 1]."""
    from vocalface.media import resize

    return np.moveaxis(resize(np.ascontiguousarray(face), size, size), -1, 0).astype(np.float32) / 255


def frames_of(run: Faces, draw: np.ndarray) -> tuple[int, int]:
    """Two different frames of a run from two numbers in [0, 1)."""
    first = int(draw[0] * len(run))
    return first, (first + 1 + int(draw[1] * (len(run) - 1))) % len(run)


def told(material: Sequence[Faces]) -> list:
    """What a training depends on, for its checkpoints' sake."""
    return [(len(r), round(float(np.sum(r.coefficients, dtype=np.float64)), 4)) for r in material]


def augmented(images: Tensor, turned: Tensor, draw: np.ndarray) -> tuple[Tensor, Tensor]:
    """A pair of frames [2, 3, H, W] and their angles [2, 3], mirrored, exchanged and recoloured by chance."""
    if draw[0] < 0.5:
        images, turned = images.flip(-1), turned * turned.new_tensor([-1, 1, -1])
    if draw[1] < 0.5:
        images, turned = images.flip(0), turned.flip(0)
    brightness, contrast, saturation = 1 + 0.1 * (2 * draw[2:5] - 1)
    mean = images.mean()
    images = (images * float(brightness) - mean) * float(contrast) + mean
    gray = images.mean(1, keepdim=True)
    return (gray + (images - gray) * float(saturation)).clamp(0, 1), turned


class Renderer(nn.ModuleDict):
    """The networks of stage 1 under the names they have in checkpoints."""

    def __init__(self, c: FaceVid2VidConfig) -> None:
        super().__init__({
            "kp_extractor": KPDetector(c.keypoint_base, c.depth, c.blocks),
            "he_estimator": HEEstimator(c.pose_base),
            "generator": OcclusionAwareSPADEGenerator(c.base, c.volume, c.depth, c.blocks, spectral=True),
            "discriminator": MultiScaleDiscriminator(base=c.critic_base, blocks=c.critic_blocks),
        })  # fmt: skip


class Trainer:
    """The networks, their optimisers, and one step.

    Args:
        vgg: for the perceptual term; without it the multi-scale gradient term, and `terms` says so.

    Raises:
        ObservationsError: no run is long enough. ConfigError: a batch that the processes cannot share.
    """

    kind, prefix = "sadtalker.renderer", ""

    def __init__(
        self, material: Sequence[Faces], config: FaceVid2VidConfig, world: World | None = None, *,
        vgg: losses.Vgg19 | None = None,
    ) -> None:  # fmt: skip
        self.config, self.world = config, world or World()
        self.material = [run for run in material if len(run) >= 2]
        if not self.material:
            raise ObservationsError("no run of two frames", "face-vid2vid", "give clips of talking people")
        self.world.check(config.batch)
        torch.manual_seed(config.seed)
        self.net = Renderer(config).to(self.world.device)
        alike(self.net, self.world)
        synchronise(self.net, self.world)
        self.perceptual = losses.Perceptual(vgg).to(self.world.device)
        self.makers = [p for name in ("kp_extractor", "he_estimator", "generator") for p in self.net[name].parameters()]
        self.critics = list(self.net["discriminator"].parameters())
        self.maker = torch.optim.Adam(self.makers, config.lr, betas=(0.5, 0.999))
        self.critic = torch.optim.Adam(self.critics, config.lr, betas=(0.5, 0.999))
        self.terms = {"perceptual": self.perceptual.name, "head pose": "the coefficients' angles"}
        self.told = (told(self.material), self.terms)

    def state(self) -> dict:
        return {"net": self.net.state_dict(), "maker": self.maker.state_dict(), "critic": self.critic.state_dict()}

    def restore(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.maker.load_state_dict(state["maker"])
        self.critic.load_state_dict(state["critic"])

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, losses.Warp]:
        """Source and driving pictures [B, 3, S, S], the driving head's angles [B, 3], and a warp, of a step."""
        c = self.config
        draws = at(c.seed, step).random((c.batch, 7))
        chosen = rows(len(self.material), c.batch, c.seed, step, self.world)
        mine = self.world.share(c.batch)
        pairs, turns = [], []
        for row, k in zip(chosen, mine):
            run = self.material[row]
            which = frames_of(run, draws[k])
            images = torch.from_numpy(np.stack([picture(run.face(i), c.size) for i in which]))
            turned = torch.from_numpy(angles(np.stack([run.coefficients[i] for i in which])))
            if c.augment:
                images, turned = augmented(images, turned, draws[k, 2:])
            pairs.append(images)
            turns.append(turned)
        images, turned = torch.stack(pairs).to(self.world.device), torch.stack(turns).to(self.world.device)
        warp = losses.Warp(c.batch, torch_at(c.seed, step, stream=3)).part(torch.from_numpy(mine), self.world.device)
        return images[:, 0], images[:, 1], turned[:, 1], warp

    def step(self, step: int) -> dict[str, float]:
        c, net = self.config, self.net.train()
        for optimiser in (self.maker, self.critic):
            for group in optimiser.param_groups:
                group["lr"] = c.lr * (0.1 if step >= c.decay_at * c.steps else 1.0)
        source, driving, turned, warp = self.batch(step)
        canonical = net["kp_extractor"](source)
        count = len(source)
        motions = net["he_estimator"](torch.cat([source, driving, warp.picture(driving)]))
        at_source, at_driving, at_warped = (type(motions)(*(m[k * count :][:count] for m in motions)) for k in range(3))
        here, there = transform(canonical, at_source), transform(canonical, at_driving)
        made = net["generator"](source, here, there).prediction

        net["discriminator"].requires_grad_(False)
        real, fake = net["discriminator"](driving), net["discriminator"](made)
        terms = {
            "perceptual": c.perceptual * self.perceptual(made, driving),
            "gan": c.gan * losses.fooling(fake),
            "matching": c.matching * losses.feature_matching(real, fake),
            "equivariance": c.equivariance * warp.equivariance(there, transform(canonical, at_warped)),
            "prior": c.prior * losses.keypoint_prior(there),
            "pose": c.pose * losses.head_pose(at_driving, turned),
            "deformation": c.deformation * losses.deformation_prior(at_driving),
        }
        sum(terms.values()).backward()
        average_gradients(self.makers, self.world)
        step_optimizers(self.maker)

        net["discriminator"].requires_grad_(True)
        loss = losses.telling(net["discriminator"](driving), net["discriminator"](made.detach()))
        loss.backward()
        average_gradients(self.critics, self.world)
        step_optimizers(self.critic)
        average(net.buffers(), self.world)
        return {name: value.item() for name, value in terms.items()} | {"critic": loss.item()}

    @torch.no_grad()
    def examine(self, material: Sequence[Faces]) -> train_report.Shown:
        """Frames drawn from the first one of their run: psnr, that of the first frame as it stands, and how far the
        estimated head is turned from where it was, degrees."""
        net, device, rows, pictures = self.net.eval(), self.world.device, [], []
        for run, frame in train_report.evenly([run for run in material if len(run) >= 2]):
            true = [picture(run.face(i), self.config.size) for i in (0, frame)]
            source, driving = (torch.from_numpy(image)[None].to(device) for image in true)
            canonical = net["kp_extractor"](source)
            motions = [net["he_estimator"](image) for image in (source, driving)]
            made = net["generator"](source, *(transform(canonical, m) for m in motions)).prediction
            made = made[0].float().cpu().numpy()
            turned = torch.from_numpy(angles(np.asarray(run.coefficients[frame]))[None]).to(device)
            rows.append({
                "psnr": psnr(made, true[1]), "psnr_first_frame": psnr(*true),
                "head_pose": float(losses.head_pose(motions[1], turned)),
            })  # fmt: skip
            pictures.append(train_report.strip(*true, made))
        return train_report.Shown(train_report.mean(rows), pictures, "source | driving | drawn")
