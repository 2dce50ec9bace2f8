"""Every knob of HM-Talker in one flat dataclass; presets are data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from vocalface.errors import ConfigError

MOUTH_REACH = (0.02, 0.04, 0.02)
"""Metres that nothing in the mouth moves beyond. It is drawn, and taught, in the lips' box alone: what once left the
box nothing would call back, and it would show beside the head."""


@dataclass(frozen=True)
class Config:
    """HM-Talker's configuration. Defaults are the paper's, or `PAPER.md` says why not."""

    preset: str = "paper"
    size: int = 512  # training resolution, px of the square crop
    seed: int = 0

    # --- inputs ------------------------------------------------------------------------------------------------
    audio: Literal["articulatory", "mel", "ave", "hubert", "deepspeech"] = "articulatory"
    explicit: Literal["au", "3dmm", "blendshape"] = "au"  # Table 4: what the explicit lower-face feature is
    window: int = 8  # speech frames i-4 .. i+3 that AudioNet and AudioAttNet see
    upper: Literal["au", "au+eyes", "au+shape"] = "au"  # + each lid and the gaze; + principal components of the eyes
    upper_rank: int = 10  # how many of them

    # --- fields ------------------------------------------------------------------------------------------------
    face_gaussians: int = 2_000  # at the start; densification adds
    mouth_gaussians: int = 10_000
    max_gaussians: int = 60_000  # densification stops here (face and mouth each)
    init: Literal["surface", "random"] = "random"  # surface = head pixels lifted onto the tracked face
    sh_degree: int = 2  # spherical harmonics of the colour, 0..2
    bound: float = 0.15  # metres, half side of the tri-plane's cube
    deformation: Literal["mlp", "linear"] = "mlp"  # linear = Gaussian blendshapes
    linear_rank: int = 16  # blendshapes of the linear deformation
    embedding: int = 0  # numbers of a Gaussian's own beside its tri-plane features, for the MLP
    color_motion: bool = False  # the deformation also moves the colour (wrinkles, shadows, lids over eyes)

    # --- hybrid motion (CMDM and HMMM) -------------------------------------------------------------------------
    fusion: Literal["gate", "concat", "fixed", "implicit", "explicit"] = "gate"
    fixed_alpha: float = 0.5  # fusion="fixed"
    mapper: Literal["a2am", "expnet"] = "a2am"  # from audio to the explicit feature
    path_audio: float = 0.4  # how often each feature pair is drawn: 4 : 4 : 2
    path_masked: float = 0.4
    path_vanilla: float = 0.2
    pairing: Literal["stochastic", "alternate"] = "stochastic"
    mask_low: float = 0.1  # masking ratio r ~ U(low, high); equal bounds fix it
    mask_high: float = 0.3
    align_weight: float = 1e-3  # L_align
    align_detach: bool = False

    # --- schedule ----------------------------------------------------------------------------------------------
    follow_drift: bool = False  # the sound is moved to where the lips are: footage runs off by up to a frame
    speech_steps: int = 0  # alignment of CMDM alone, no pixels, before the stages
    teacher: bool = False  # it learns the answers of a kernel ridge regression, on blended windows too
    warmup_steps: int = 3_000  # static field, within the face stage
    face_steps: int = 50_000
    mouth_steps: int = 50_000
    fuse_steps: int = 15_000
    fuse_motion: bool = False  # the fuse stage also trains both motion fields
    lpips_tail: int = 3_000  # LPIPS (or its stand-in) in the last steps of the face stage

    # --- losses ------------------------------------------------------------------------------------------------
    ssim_weight: float = 0.2
    lpips_weight: float = 0.5
    mask_weight: float = 1e-3  # alpha against the head's matte
    motion_l1: float = 1e-5  # |delta|
    attention_weight: float = 1e-4  # expression attention off the lips, both off the hair
    lips_weight: float = 1.0  # extra weight of the lips' box in the face stage

    # --- optimisers --------------------------------------------------------------------------------------------
    lr_means: float = 1.6e-4
    lr_color: float = 2.5e-3
    lr_opacity: float = 0.05
    lr_scale: float = 3e-3
    lr_rotation: float = 1e-3
    lr_basis: float = 1e-3  # Gaussian blendshapes
    lr_embedding: float = 1e-2
    lr_grid: float = 5e-3
    lr_net: float = 5e-4
    lr_speech: float = 5e-4  # AudioNet and the mapper
    lr_align: float = 1e-3  # of both while speech is aligned
    lr_attention: float = 2.5e-3
    pose_steps: int = 0  # Gauss-Newton steps on a training frame's pose before each step on it

    # --- densification -----------------------------------------------------------------------------------------
    densify_every: int = 100
    densify_from: int = 500
    densify_until: int = 49_000
    densify_gradient: float = 5e-4
    densify_gradient_mouth: float = 2e-4
    percent_dense: float = 0.005

    # --- generalisation ----------------------------------------------------------------------------------------
    condition_noise: float = 0.0  # std of noise on the control vectors, in their own std
    noisy_copies: int = 0  # of the sound, with noise 15 to 40 dB under it, that speech is learned from as well
    feature_noise: float = 0.0  # std of noise on speech features, in their own std, while speech is aligned
    pixel_noise: float = 0.0  # the same in the stages that see pixels
    upper_noise: float = 0.0  # std of noise on the upper face's condition, in its own std
    net_decay: float = 0.0  # AdamW weight decay of the speech networks

    match_amplitude: bool = False  # predicted AUs get the spread of the seen ones, at the end

    # --- bookkeeping -------------------------------------------------------------------------------------------
    val_fraction: float = 1 / 11  # the clip's tail, never trained on
    pose_refine_steps: int = 0  # Gauss-Newton steps on a held-out frame's pose, without mouth pixels
    upper_steps: int = 0  # the same on its upper face, above the nose's tip; of a training frame's one at most
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        total = self.path_audio + self.path_masked + self.path_vanilla
        if abs(total - 1) > 1e-6:
            raise ConfigError("path ratios do not sum to 1", f"sum = {total:g}", "give three shares, e.g. 0.4 0.4 0.2")
        if not 0 <= self.mask_low <= self.mask_high < 1:
            raise ConfigError("masking ratios out of range", f"[{self.mask_low}, {self.mask_high}]", "use 0.1 and 0.3")
        if self.size < 64 or self.size % 2:
            raise ConfigError("training size must be even and at least 64 px", f"size={self.size}", "use 256 or 512")

    def replace(self, **changes) -> Config:
        unknown = set(changes) - {f.name for f in dataclasses.fields(self)}
        if unknown:
            raise ConfigError(
                f"unknown option: {', '.join(sorted(unknown))}", "HM-Talker configuration", "see config.py"
            )
        return dataclasses.replace(self, **changes)

    def at_size(self, size: int) -> Config:
        """For another training size, px. Heads that start from the tracked surface get more Gaussians and more steps
        where there are more pixels (`fast`: 10,000 and 14,000 at 256 px, 16,000 and 17,500 at 512); densification finds
        its own number, and its schedule is the paper's."""
        if self.init != "surface":
            return self.replace(size=size)
        more = size / self.size
        steps = {k: int(round(getattr(self, k) * more**0.32, -1)) for k in ("face_steps", "mouth_steps", "fuse_steps")}
        return self.replace(size=size, face_gaussians=int(round(self.face_gaussians * more**0.68, -2)), **steps)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict) -> Config:
        known = {f.name for f in dataclasses.fields(Config)}
        return Config(**{k: v for k, v in values.items() if k in known})


# What the two CPU presets share. They start from the tracked surface with a fixed number of Gaussians (densification
# is what a short schedule cannot afford), align speech with action units before any pixel, refine every frame's pose
# through the rasteriser and regularise, because generalisation, not fitting, is the limit on a minute of video.
_CPU = Config(
    init="surface",
    sh_degree=0,
    densify_until=0,
    follow_drift=True,
    speech_steps=600,
    teacher=True,
    upper="au+shape",
    color_motion=True,
    embedding=16,
    fuse_motion=True,
    attention_weight=1e-4,
    mask_weight=2e-2,
    align_weight=1e-2,
    lips_weight=3.0,
    lr_grid=4e-2,
    lr_net=4e-3,
    lr_speech=2e-4,
    lr_basis=1e-2,
    lr_means=1e-4,
    lr_color=5e-3,
    pose_steps=1,
    condition_noise=0.1,
    noisy_copies=3,
    feature_noise=0.5,
    pixel_noise=1.0,
    upper_noise=0.2,
    net_decay=0.1,
    match_amplitude=True,
    pose_refine_steps=6,
    lpips_tail=0,
)

PRESETS: dict[str, Config] = {
    "paper": Config(),
    "fast": _CPU.replace(
        preset="fast", size=256, face_gaussians=10_000, mouth_gaussians=3_000, warmup_steps=400,
        face_steps=8_000, mouth_steps=1_500, fuse_steps=4_500, upper_steps=2,
    ),
    "demo": _CPU.replace(
        preset="demo", size=192, face_gaussians=6_000, mouth_gaussians=1_500, warmup_steps=300,
        face_steps=2_000, mouth_steps=600, fuse_steps=1_200,
    ),
}  # fmt: skip
PRESETS["tiny"] = PRESETS["demo"].replace(
    preset="tiny", size=64, face_gaussians=600, mouth_gaussians=200, warmup_steps=40, face_steps=120, mouth_steps=60,
    fuse_steps=60, speech_steps=60, pose_refine_steps=2,
)  # fmt: skip


def preset(name: str) -> Config:
    """The configuration called `name`. Raises ConfigError for an unknown one."""
    if name not in PRESETS:
        raise ConfigError(f"no preset is called {name!r}", "--preset", f"use one of {', '.join(PRESETS)}")
    return PRESETS[name]
