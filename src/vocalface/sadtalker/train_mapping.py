"""Training of MappingNet, stage 2 of the renderer: coefficients learn to move what stage 1 draws (SadTalker, 3.3).

Keypoint detector, generator and pose estimator of stage 1 are frozen. Two frames of one run: their windows of
coefficients are to give the estimator's keypoints, and the picture of the second from the first.

Alignment: besides pose and expression, the coefficients of a picture hold scale and place of its alignment. The network
may go without them, or take them as given, fixed to the portrait's, or learned (the ablation of the paper's renderer).
Learned ones are the same for every portrait and so no more than a bias: `checkpoints.load_mapping` makes them one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vocalface.errors import AssetError, ConfigError, ObservationsError
from vocalface.metrics.image import psnr
from vocalface.nn.spade import fold_spectral_norm
from vocalface.sadtalker import losses, train_report
from vocalface.sadtalker.discriminator import MultiScaleDiscriminator
from vocalface.sadtalker.facevid2vid import OcclusionAwareSPADEGenerator
from vocalface.sadtalker.framing import coefficient_window
from vocalface.sadtalker.keypoints import HEEstimator, KPDetector, transform
from vocalface.sadtalker.mapping import MappingNet, Motion
from vocalface.sadtalker.train_facevid2vid import Faces, FaceVid2VidConfig, frames_of, picture, told
from vocalface.training.distributed import World, alike, average, average_gradients, rows
from vocalface.training.loop import step_optimizers
from vocalface.training.rng import at

Alignment = Literal["none", "given", "fixed", "learned"]
DIRECT, ALIGNED = 70, 73


@dataclass(frozen=True)
class MappingConfig:
    """Batch: of all processes together. The published schedule is not known; steps and weights are ours."""

    steps: int = 150_000
    batch: int = 32
    lr: float = 2e-4
    decay_at: float = 0.9  # share of the steps after which lr is a tenth
    alignment: Alignment = "none"  # none: the published 00229; given: 00109; fixed, learned: the paper's ablation
    width: int = 1024
    pixel: float = 10.0
    perceptual: float = 10.0
    keypoints: float = 10.0
    gan: float = 1.0
    matching: float = 10.0
    critic_base: int = 32
    critic_blocks: int = 4
    seed: int = 0
    checkpoint_seconds: float = 300.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.width) < 1 or self.lr <= 0:
            raise ConfigError("steps, batch, width and lr are positive", "MappingConfig", "see its defaults")
        if self.alignment not in get_args(Alignment):
            raise ConfigError(
                f"there is no alignment {self.alignment!r}", "alignment", f"one of {', '.join(get_args(Alignment))}"
            )


PRESETS = {
    "official": MappingConfig(),
    "tiny": MappingConfig(steps=40, batch=2, lr=1e-3, width=32, critic_base=8, critic_blocks=2),
}


@dataclass(frozen=True)
class Renderer:
    """The frozen networks of stage 1."""

    keypoints: nn.Module
    generator: nn.Module
    estimator: nn.Module | None  # the published file has none
    size: int
    digest: str = ""

    def to(self, device: str) -> Renderer:
        for network in (self.keypoints, self.generator, self.estimator):
            if network is not None:
                network.requires_grad_(False).eval().to(device)
        return self


def load_renderer(path: Path | str) -> Renderer:
    """Of `train sadtalker.renderer`, or of a published SadTalker_*.safetensors.

    Raises:
        AssetError: no such file, or neither of both.
    """
    path = Path(path)
    if not path.is_file():
        raise AssetError("the renderer's weights are not there", path, "vocalface train sadtalker.renderer CORPUS")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise AssetError(f"not a safetensors file ({error})", path, "give weights of sadtalker.renderer") from error
    if about.get("kind", "sadtalker.renderer") != "sadtalker.renderer":
        raise AssetError(f"these are weights of {about['kind']}", path, "give weights of sadtalker.renderer")
    if "kind" not in about:
        from vocalface.sadtalker.checkpoints import load_published

        found = load_published(path, ("kp_extractor", "generator"))
        size = 512 if "512" in path.name else 256  # the weights' shapes do not tell
        return Renderer(found["kp_extractor"], found["generator"], None, size, _digest(found["generator"]))
    known = {f.name for f in fields(FaceVid2VidConfig)}
    c = FaceVid2VidConfig(**{k: v for k, v in json.loads(about["config"]).items() if k in known})
    state = load_file(path)
    networks = {
        "kp_extractor": KPDetector(c.keypoint_base, c.depth, c.blocks), "he_estimator": HEEstimator(c.pose_base),
        "generator": OcclusionAwareSPADEGenerator(c.base, c.volume, c.depth, c.blocks),
    }  # fmt: skip
    for name, network in networks.items():
        part = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        try:
            network.load_state_dict(fold_spectral_norm(part))
        except RuntimeError as error:
            raise AssetError(f"the weights do not fit {name}", path, "train the renderer again") from error
    return Renderer(*(networks[k] for k in ("kp_extractor", "generator", "he_estimator")), c.size, _digest(
        networks["generator"]
    ))  # fmt: skip


def _digest(network: nn.Module) -> str:
    """What tells two renderers apart."""
    sums = [float(p.double().sum()) for p in network.state_dict().values()]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


class Mapped(nn.Module):
    """MappingNet behind the choice of alignment."""

    def __init__(self, alignment: Alignment, width: int) -> None:
        super().__init__()
        self.mapping = MappingNet(DIRECT if alignment == "none" else ALIGNED, width)
        self.choice = alignment
        self.alignment = nn.Parameter(torch.zeros(3)) if alignment == "learned" else None

    def forward(self, windows: Tensor, source: Tensor) -> Motion:
        """Windows [B, 73, 27] and the portrait's own coefficients [B, 73] -> Motion of B frames."""
        if self.choice == "none":
            return self.mapping(windows[:, :DIRECT])
        if self.choice != "given":
            crop = source[:, DIRECT:] if self.choice == "fixed" else self.alignment.expand(len(windows), 3)
            windows = torch.cat([windows[:, :DIRECT], crop[..., None].expand(-1, -1, windows.shape[-1])], 1)
        return self.mapping(windows)


class Trainer:
    """The network, its discriminator, their optimisers, and one step.

    Args:
        vgg: for the perceptual term; without it the multi-scale gradient term, and `terms` says so.

    Raises:
        ObservationsError: no run is long enough. ConfigError: a batch that the processes cannot share.
    """

    kind, prefix = "sadtalker.mapping", ""

    def __init__(
        self, material: Sequence[Faces], renderer: Renderer, config: MappingConfig, world: World | None = None, *,
        vgg: losses.Vgg19 | None = None,
    ) -> None:  # fmt: skip
        self.config, self.world = config, world or World()
        self.material = [run for run in material if len(run) >= 2]
        if not self.material:
            raise ObservationsError("no run of two frames", "MappingNet", "give clips of talking people")
        self.world.check(config.batch)
        torch.manual_seed(config.seed)
        self.mapped = Mapped(config.alignment, config.width)
        self.net = nn.Module()  # names its parts as the published file's entries
        self.net.mapping, self.net.alignment = self.mapped.mapping, self.mapped.alignment
        self.adversarial = config.gan > 0 or config.matching > 0
        if self.adversarial:
            self.net.discriminator = MultiScaleDiscriminator(base=config.critic_base, blocks=config.critic_blocks)
        self.net.to(self.world.device)
        alike(self.net, self.world)
        self.renderer = renderer.to(self.world.device)
        self.perceptual = losses.Perceptual(vgg).to(self.world.device)
        self.makers = list(self.mapped.parameters())
        self.critics = list(self.net.discriminator.parameters()) if self.adversarial else []
        self.maker = torch.optim.Adam(self.makers, config.lr, betas=(0.5, 0.999))
        self.critic = torch.optim.Adam(self.critics, config.lr, betas=(0.5, 0.999)) if self.adversarial else None
        self.terms = {
            "perceptual": self.perceptual.name,
            "keypoints": "on" if renderer.estimator is not None else "off: the renderer has no pose estimator",
            "alignment": config.alignment,
        }
        self.told = (told(self.material), self.terms, renderer.digest)

    def state(self) -> dict:
        critic = self.critic.state_dict() if self.critic else None
        return {"net": self.net.state_dict(), "maker": self.maker.state_dict(), "critic": critic}

    def restore(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.maker.load_state_dict(state["maker"])
        if self.critic:
            self.critic.load_state_dict(state["critic"])

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures [B, 2, 3, S, S] and windows [B, 2, 73, 27] of source and driving frames."""
        c = self.config
        draws = at(c.seed, step).random((c.batch, 2))
        chosen = rows(len(self.material), c.batch, c.seed, step, self.world)
        images, windows = [], []
        for row, k in zip(chosen, self.world.share(c.batch)):
            run = self.material[row]
            which = frames_of(run, draws[k])
            images.append(np.stack([picture(run.face(i), self.renderer.size) for i in which]))
            windows.append(np.stack([coefficient_window(run.coefficients, i) for i in which]))
        stacked = (torch.from_numpy(np.stack(v)).float().to(self.world.device) for v in (images, windows))
        return tuple(stacked)

    def step(self, step: int) -> dict[str, float]:
        c, renderer = self.config, self.renderer
        for optimiser in filter(None, (self.maker, self.critic)):
            for group in optimiser.param_groups:
                group["lr"] = c.lr * (0.1 if step >= c.decay_at * c.steps else 1.0)
        self.net.train()
        images, windows = self.batch(step)
        source, driving = images.unbind(1)
        count, row = len(source), windows[:, 0, :, windows.shape[-1] // 2]
        motions = self.mapped(torch.cat([*windows.unbind(1)]), row.repeat(2, 1))
        here, there = (type(motions)(*(m[part] for m in motions)) for part in (slice(count), slice(count, None)))
        with torch.no_grad():
            canonical = renderer.keypoints(source)
        moved = transform(canonical, here), transform(canonical, there)
        made = renderer.generator(source, *moved).prediction
        terms = {
            "pixel": c.pixel * (made - driving).abs().mean(),
            "perceptual": c.perceptual * self.perceptual(made, driving),
        }
        if renderer.estimator is not None:
            with torch.no_grad():
                wanted = [transform(canonical, renderer.estimator(image)) for image in (source, driving)]
            terms["keypoints"] = c.keypoints * sum((a - b).abs().mean() for a, b in zip(moved, wanted))
        if self.adversarial:
            critic = self.net.discriminator.requires_grad_(False)
            real, fake = critic(driving), critic(made)
            terms["gan"] = c.gan * losses.fooling(fake)
            terms["matching"] = c.matching * losses.feature_matching(real, fake)
        sum(terms.values()).backward()
        average_gradients(self.makers, self.world)
        step_optimizers(self.maker)
        values = {name: value.item() for name, value in terms.items()}
        if self.adversarial:
            critic.requires_grad_(True)
            loss = losses.telling(critic(driving), critic(made.detach()))
            loss.backward()
            average_gradients(self.critics, self.world)
            step_optimizers(self.critic)
            values["critic"] = loss.item()
        average(self.net.buffers(), self.world)
        return values

    @torch.no_grad()
    def examine(self, material: Sequence[Faces]) -> train_report.Shown:
        """Frames drawn by their coefficients from the first one of their run: psnr, that of the first frame as it
        stands, and, where stage 1 has its pose estimator, that of its own picture and how far keypoints are apart."""
        mapped, renderer, device = self.mapped.eval(), self.renderer, self.world.device
        rows, pictures = [], []
        for run, frame in train_report.evenly([run for run in material if len(run) >= 2]):
            true = [picture(run.face(i), renderer.size) for i in (0, frame)]
            source, driving = (torch.from_numpy(image)[None].to(device) for image in true)
            windows = np.stack([coefficient_window(run.coefficients, i) for i in (0, frame)])
            windows = torch.from_numpy(windows).float().to(device)
            motions = mapped(windows, windows[:1, :, windows.shape[-1] // 2].expand(2, -1))
            canonical = renderer.keypoints(source)
            moved = [transform(canonical, type(motions)(*(m[i : i + 1] for m in motions))) for i in (0, 1)]

            def drawn(*points: Tensor, source: Tensor = source) -> np.ndarray:
                return renderer.generator(source, *points).prediction[0].float().cpu().numpy()

            made = [drawn(*moved)]
            row = {"psnr": psnr(made[0], true[1]), "psnr_first_frame": psnr(*true)}
            if renderer.estimator is not None:
                wanted = [transform(canonical, renderer.estimator(image)) for image in (source, driving)]
                made.insert(0, drawn(*wanted))
                row["psnr_stage_1"] = psnr(made[0], true[1])
                row["keypoints"] = float(sum((a - b).abs().mean() for a, b in zip(moved, wanted)) / 2)
            rows.append(row)
            pictures.append(train_report.strip(*true, *made))
        caption = "source | driving | " + ("stage 1 | " if renderer.estimator is not None else "") + "by coefficients"
        return train_report.Shown(train_report.mean(rows), pictures, caption)
