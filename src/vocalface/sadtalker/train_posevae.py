"""Training of the official PoseVAE (SadTalker, section 3.2): L_MSE + L_KL + 0.7 L_GAN over stretches of 33 frames.

Frame 0 is the portrait's pose, frames 1..32 are learned as residuals to it. The voice's encoder is Wav2Lip's, frozen,
when its weights are given; without them it learns along, and the run says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vocalface.errors import ConfigError, ObservationsError
from vocalface.observe.speech.mel import log_mel
from vocalface.sadtalker.framing import mel_windows
from vocalface.sadtalker.open_corpus import head_motion, read
from vocalface.sadtalker.posevae import BLOCK, POSE, STYLES, Audio2Pose
from vocalface.sadtalker.train_run import run
from vocalface.training.distributed import World, alike, average, average_gradients, rows
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

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.critic_every) < 1 or self.lr <= 0:
            raise ConfigError("steps, batch, critic_every and lr are positive", "PoseVAEConfig", "see its defaults")


PRESETS = {"official": PoseVAEConfig(), "tiny": PoseVAEConfig(steps=40, batch=4, lr=1e-3)}


@dataclass(frozen=True)
class Clip:
    """A talking head: what is heard and how it moves."""

    mel: np.ndarray  # [T, 1, 80, 16]
    pose: np.ndarray  # [T, 6]: pitch, yaw, roll (rad) and translation
    style: int = 0  # the speaker's class, 0..45


def clips(folder: Path | str) -> Iterator[Clip]:
    """Observations (`*.obs`) in a folder as clips; each first folder under it is a speaker, a class of its own.

    Angles are radians; translations decimetres about the clip's median, by our own tracker: weights that are trained
    here go with poses of `vocalface observe`, published ones with those of Deep3DFaceRecon.

    Raises:
        ObservationsError: nothing there, or more than 46 speakers.
    """
    folder = Path(folder)
    speakers = sorted({p.relative_to(folder).parts[0] for p in folder.rglob("*.obs") if p.is_dir()})
    if len(speakers) > STYLES:
        raise ObservationsError(
            f"{len(speakers)} speakers, at most {STYLES} have a class", folder,
            "put the clips of one speaker into one folder",
        )  # fmt: skip
    for style, name in enumerate(speakers):
        for seen in read(folder / name if not name.endswith(".obs") else folder):
            motion = head_motion(seen.track.head_pose)
            pose = np.concatenate([motion[:, [1, 0, 2]], 10 * motion[:, 3:6]], axis=1)
            yield Clip(mel_windows(log_mel(seen.sound.samples), len(pose)), pose.astype(np.float32), style)
        if name.endswith(".obs"):
            return  # a flat folder was read whole: one speaker


class Trainer:
    """The networks, their optimisers, and one step."""

    def __init__(
        self, material: Sequence[Clip], config: PoseVAEConfig, world: World | None = None, voice: dict | None = None
    ) -> None:
        """voice: Wav2Lip's audio encoder as a state dict; frozen then."""
        self.config, self.world = config, world or World()
        self.material = [clip for clip in material if len(clip.pose) >= STRETCH]
        if not self.material:
            raise ObservationsError(
                f"no clip of {STRETCH} frames", "PoseVAE", "observe clips of at least 2 s with sound"
            )
        torch.manual_seed(config.seed)
        self.net = Audio2Pose().to(self.world.device)
        self.voice_is_given = voice is not None
        if voice is not None:
            self.net.audio_encoder.load_state_dict(voice)
            self.net.audio_encoder.requires_grad_(False)
        alike(self.net, self.world)
        maker = [*self.net.netG.parameters(), *([] if self.voice_is_given else self.net.audio_encoder.parameters())]
        self.maker = torch.optim.Adam(maker, config.lr, betas=(0.9, 0.99))
        self.critic = torch.optim.Adam(self.net.netD_motion.parameters(), config.lr, betas=(0.9, 0.99))
        self.told = ([(len(c.pose), float(c.pose.sum()), float(c.mel.sum())) for c in self.material], voice is not None)

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
        chosen = rows(len(self.material), c.batch, c.seed, step)
        mine = np.array_split(np.arange(c.batch), self.world.size)[self.world.rank]
        mel, reference, residual, style = [], [], [], []
        for k in mine:
            clip = self.material[chosen[k]]
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
        noise = torch_at(c.seed, step, stream=self.world.rank + 1)
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
        average(net.buffers(), self.world)  # running means of the batches
        return {"reg": reg.item(), "kl": kl.item(), "gan": gan.item()}


def train(
    material: Sequence[Clip], output: Path | str, config: PoseVAEConfig | str = "official", *,
    world: World | None = None, voice: dict | None = None, progress=None, work: Path | None = None,
) -> dict:  # fmt: skip
    """Train and write `output`, see `train_run.run`; also returns whether the voice's encoder was given.

    Raises:
        ObservationsError, OutputError.
    """
    trainer = Trainer(material, PRESETS[config] if isinstance(config, str) else config, world, voice)
    made = run(trainer, "audio2pose", output, progress=progress, work=work)
    return made | {"voice_is_given": trainer.voice_is_given}
