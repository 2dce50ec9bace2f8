"""Training of the official PoseVAE (SadTalker, section 3.2): L_MSE + L_KL + 0.7 L_GAN over stretches of 33 frames.

Frame 0 is the portrait's pose, frames 1..32 are learned as residuals to it. The voice's encoder is Wav2Lip's, frozen,
when its weights are given; without them it learns along, and the run says so.

L_KL is divided by the 192 numbers of a block, as the mean squared error is: both are then parts of one bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vocalface.errors import ConfigError, ObservationsError
from vocalface.sadtalker import train_report
from vocalface.sadtalker.posevae import BLOCK, LATENT, POSE, STYLES, Audio2Pose
from vocalface.sadtalker.train_run import sums
from vocalface.training.distributed import World, alike, average, average_gradients, rows, synchronise
from vocalface.training.loop import step_optimizers
from vocalface.training.rng import at, torch_at

STRETCH = BLOCK + 1


@dataclass(frozen=True)
class PoseVAEConfig:
    """Defaults are the published configuration's (batch: of all processes together)."""

    steps: int = 4_500  # 150 rounds over 1,890 clips
    batch: int = 64
    lr: float = 1e-4
    reg: float = 1.0
    kl: float = 1.0
    gan: float = 0.7
    critic_every: int = 2
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.critic_every) < 1 or self.lr <= 0:
            raise ConfigError("steps, batch, critic_every and lr are positive", "PoseVAEConfig", "see its defaults")


PRESETS = {"official": PoseVAEConfig(), "tiny": PoseVAEConfig(steps=40, batch=4, lr=1e-3)}


@dataclass(frozen=True)
class Clip:
    """A talking head: what is heard and how it moves."""

    mel: np.ndarray  # [T, 1, 80, 16], or what gives its slices
    pose: np.ndarray  # [T, 6]: pitch, yaw, roll (rad) and translation, numbers 64..69 of a frame's coefficients
    style: int = 0  # the speaker's class, 0..45


class Trainer:
    """The networks, their optimisers, and one step.

    Args:
        voice: state dict of Wav2Lip's encoder as `nn.audio.AudioEncoder`; frozen then.

    Raises:
        ObservationsError: no clip is long enough, or a speaker has no class. ConfigError: a batch that the processes
            cannot share.
    """

    kind, prefix = "sadtalker.posevae", "audio2pose"

    def __init__(
        self, material: Sequence[Clip], config: PoseVAEConfig, world: World | None = None, *, voice: dict | None = None
    ) -> None:
        self.config, self.world = config, world or World()
        self.material = [clip for clip in material if len(clip.pose) >= STRETCH]
        if not self.material:
            raise ObservationsError(f"no clip of {STRETCH} frames", "PoseVAE", "give clips of at least 2 s with sound")
        speakers = {clip.style for clip in material}
        if not speakers <= set(range(STYLES)):
            raise ObservationsError(
                f"{len(speakers)} speakers, at most {STYLES} have a class", "PoseVAE",
                "put the clips of one speaker into one folder, and take as many speakers",
            )  # fmt: skip
        self.world.check(config.batch)
        torch.manual_seed(config.seed)
        self.net = Audio2Pose().to(self.world.device)
        self.voice_is_given = voice is not None
        if voice is not None:
            self.net.audio_encoder.load_state_dict(voice)
            self.net.audio_encoder.requires_grad_(False)
        alike(self.net, self.world)
        synchronise(self.net, self.world)
        maker = [*self.net.netG.parameters(), *([] if self.voice_is_given else self.net.audio_encoder.parameters())]
        self.maker = torch.optim.Adam(maker, config.lr, betas=(0.9, 0.99))
        self.critic = torch.optim.Adam(self.net.netD_motion.parameters(), config.lr, betas=(0.9, 0.99))
        self.terms = {
            "voice": "Wav2Lip's, frozen" if self.voice_is_given else "learns along: wav2lip.pth is not here",
            "speakers": str(len(speakers)),
        }
        told = [(len(c.pose), c.style, *sums(c.mel[0:1], c.pose)) for c in self.material]
        self.told = (told, self.terms)

    def state(self) -> dict:
        return {"net": self.net.state_dict(), "maker": self.maker.state_dict(), "critic": self.critic.state_dict()}

    def restore(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.maker.load_state_dict(state["maker"])
        self.critic.load_state_dict(state["critic"])

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mel windows [B, 32, 1, 80, 16], reference [B, 6], residual [B, 32, 6] and style [B] of a step."""
        c = self.config
        starts = at(c.seed, step).random(c.batch)
        chosen = rows(len(self.material), c.batch, c.seed, step, self.world)
        mel, reference, residual, style = [], [], [], []
        for row, k in zip(chosen, self.world.share(c.batch)):
            clip = self.material[row]
            first = int(starts[k] * (len(clip.pose) - STRETCH + 1))
            pose = clip.pose[first : first + STRETCH]
            mel.append(clip.mel[first + 1 : first + STRETCH])
            reference.append(pose[0])
            residual.append(pose[1:] - pose[0])
            style.append(clip.style)
        tensors = [torch.from_numpy(np.stack(v)).float().to(self.world.device) for v in (mel, reference, residual)]
        return (*tensors, torch.tensor(style, device=self.world.device))

    def step(self, step: int) -> dict[str, float]:
        c, net = self.config, self.net.train()
        if self.voice_is_given:
            net.audio_encoder.eval()
        mel, reference, residual, style = self.batch(step)
        noise = torch.randn(c.batch, LATENT, generator=torch_at(c.seed, step, stream=1))  # of all processes
        noise = noise[torch.from_numpy(self.world.share(c.batch))].to(self.world.device)
        voice = net.voice(mel)
        made, mean, logvar = net.netG(residual, reference, voice, style, noise)
        fooled = net.netD_motion(reference[:, None] + made)
        reg = F.mse_loss(made, residual)
        kl = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1).mean() / POSE / BLOCK
        gan = F.binary_cross_entropy_with_logits(fooled, torch.ones_like(fooled))
        (c.reg * reg + c.kl * kl + c.gan * gan).backward()
        average_gradients((p for g in self.maker.param_groups for p in g["params"]), self.world)
        step_optimizers(self.maker)
        if step % c.critic_every == 0:
            self.critic.zero_grad(set_to_none=True)  # what the maker's loss left
            real = net.netD_motion(reference[:, None] + residual)
            fake = net.netD_motion(reference[:, None] + made.detach())
            loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
            (loss + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))).backward()
            average_gradients(net.netD_motion.parameters(), self.world)
            step_optimizers(self.critic)
        average(net.buffers(), self.world)
        return {"reg": reg.item(), "kl": kl.item(), "gan": gan.item()}

    @torch.no_grad()
    def examine(self, material: Sequence[Clip], blocks: int = 4) -> train_report.Shown:
        """The beginning of some clips: squared error of poses that encoder and decoder make again, that of a head that
        rests, and the deviation of drawn angles over that of the seen ones. A latent that carries nothing re-makes
        no better than rest."""
        net, device, rows, curves = self.net.eval(), self.world.device, [], {}
        draw = torch.Generator().manual_seed(self.config.seed)
        for clip in [clip for clip in material if len(clip.pose) >= STRETCH][:4]:
            count = min((len(clip.pose) - 1) // BLOCK, blocks)
            pose = torch.from_numpy(np.array(clip.pose[: count * BLOCK + 1])).float().to(device)
            mel = torch.from_numpy(clip.mel[0 : len(pose)]).float().to(device)
            reference, style = pose[:1].expand(count, -1), torch.full((count,), clip.style, device=device)
            residual = (pose[1:] - pose[0]).unflatten(0, (count, BLOCK))
            voice = net.voice(mel[1:].unflatten(0, (count, BLOCK)))
            again, _, _ = net.netG(residual, reference, voice, style, torch.zeros(count, LATENT, device=device))
            drawn = net.generate(mel[None], pose[:1], clip.style, generator=draw)[0]
            rows.append({
                "mse": float((again - residual).square().mean()), "mse_at_rest": float(residual.square().mean()),
                "swing": float(drawn[:, :3].std(0).mean() / pose[:, :3].std(0).mean().clamp(min=1e-6)),
            })  # fmt: skip
            series = {"seen": pose, "made again": torch.cat([pose[:1], pose[0] + again.flatten(0, 1)]), "drawn": drawn}
            curves.setdefault("yaw, rad", {name: rows_of[:, 1].cpu().numpy() for name, rows_of in series.items()})
        return train_report.Shown(train_report.mean(rows) if rows else {}, curves=curves)
