"""The published weights: which network lies where, and a strict account of keys that do not fit.

| file | holds |
|---|---|
| SadTalker_V0.0.2_256.safetensors, ..._512.safetensors | five networks under their names, 1,305 keys |
| mapping_00229-model.pth.tar, mapping_00109-model.pth.tar | MappingNet, 70 and 73 channels, and training state |
| auido2exp_00300-model.pth, auido2pose_00140-model.pth, facevid2vid_00189-model.pth.tar, epoch_20.pth | the older set |
| wav2lip.pth, lipsync_expert.pth | Wav2Lip and its synchrony network |

Pickles are read as weights only: nothing in them runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn

from vocalface.errors import AssetError, ConfigError
from vocalface.nn.spade import fold_spectral_norm
from vocalface.nn.wav2lip import PictureCritic, SyncNetColor, Wav2Lip
from vocalface.sadtalker.expnet import ExpNet
from vocalface.sadtalker.facevid2vid import OcclusionAwareSPADEGenerator
from vocalface.sadtalker.keypoints import HEEstimator, KPDetector
from vocalface.sadtalker.mapping import MappingNet
from vocalface.sadtalker.posevae import Audio2Pose
from vocalface.sadtalker.recon import FaceRecon

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "kp_extractor": KPDetector,
    "generator": OcclusionAwareSPADEGenerator,
    "audio2exp": ExpNet,
    "audio2pose": Audio2Pose,
    "face_3drecon": FaceRecon,
}
"""The networks of a safetensors file, by the prefix of their keys."""

OLDER: dict[str, tuple[str, str, Callable[[], nn.Module]]] = {
    "kp_extractor": ("facevid2vid_00189-model.pth.tar", "kp_detector", KPDetector),
    "generator": ("facevid2vid_00189-model.pth.tar", "generator", OcclusionAwareSPADEGenerator),
    "he_estimator": ("facevid2vid_00189-model.pth.tar", "he_estimator", HEEstimator),
    "audio2exp": ("auido2exp_00300-model.pth", "model", ExpNet),
    "audio2pose": ("auido2pose_00140-model.pth", "model", Audio2Pose),
    "face_3drecon": ("epoch_20.pth", "net_recon", FaceRecon),
}
"""The older set: file, entry of its dictionary, network. (`auido` is how the files are called.)"""

WAV2LIP = {"wav2lip": Wav2Lip, "syncnet": SyncNetColor, "critic": PictureCritic}

_FETCH = "vocalface fetch sadtalker"
_SHOWN = 6  # keys of a kind that an error lists


@dataclass(frozen=True)
class KeyReport:
    """How a file's keys differ from a network's."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()  # key, wanted, found

    @property
    def fits(self) -> bool:
        """No difference at all."""
        return not (self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        wrong = [f"{key} {list(found)} instead of {list(wanted)}" for key, wanted, found in self.misshaped]
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("mis-shaped", wrong))
        return "; ".join(f"{len(keys)} {name}: {_some(keys)}" for name, keys in kinds if keys) or "all keys fit"


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")


def compare(state: Mapping[str, Tensor], network: nn.Module) -> KeyReport:
    """Holds a state dict against a network, key by key and shape by shape."""
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    return KeyReport(
        tuple(sorted(wanted.keys() - found.keys())),
        tuple(sorted(found.keys() - wanted.keys())),
        tuple(
            (key, wanted[key], found[key]) for key in sorted(wanted.keys() & found.keys()) if wanted[key] != found[key]
        ),
    )


def load_published(
    path: str | Path, names: Iterable[str] = tuple(NETWORKS), *, training: bool = False
) -> dict[str, nn.Module]:
    """Networks of SadTalker_V0.0.2_256.safetensors or ..._512.safetensors; only those asked for are read.

    Args:
        path: the file.
        names: of NETWORKS.
        training: keep spectral norm as layers instead of folding it; the networks come in training mode.

    Returns:
        The networks by name, float32 on the CPU, in evaluation mode without gradients unless `training`.

    Raises:
        AssetError: no such file, not safetensors, or keys that do not fit.
        ConfigError: a name that is none of NETWORKS.
    """
    path, names = _existing(path), tuple(names)
    for name in names:
        if name not in NETWORKS:
            raise ConfigError(
                f"The published file has no network {name!r}", "names", f"choose of {', '.join(NETWORKS)}"
            )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            strangers = sorted(key for key in file.keys() if key.partition(".")[0] not in NETWORKS)  # noqa: SIM118
            states = {
                name: {key[len(name) + 1 :]: file.get_tensor(key) for key in file.keys() if key.startswith(f"{name}.")}  # noqa: SIM118
                for name in names
            }
    except safetensors.SafetensorError as error:
        raise AssetError(f"Not a safetensors file ({error})", path, f"fetch it again: {_FETCH}") from error
    if strangers:
        raise _misfit("SadTalker", path, KeyReport(unexpected=tuple(strangers)))
    return {name: _build(name, NETWORKS[name], states.pop(name), path, training) for name in names}


def load_mapping(path: str | Path, *, training: bool = False) -> MappingNet:
    """MappingNet of a mapping_*.pth.tar, or of `train sadtalker.mapping`; the file decides between 70 and 73 channels.

    Alignment coefficients that were learned are the same in every frame: they become a part of the bias, which leaves
    70 channels.

    Raises:
        AssetError: no such file, not weights alone, or keys that do not fit.
    """
    path = _existing(path)
    ours = path.suffix == ".safetensors"
    state, learned = _trained_mapping(path) if ours else (_entry(path, "mapping"), None)
    first = state.get("first.0.weight")
    if first is None or first.ndim != 3:
        raise _misfit("MappingNet", path, KeyReport(missing=("first.0.weight",)))
    if learned is not None:
        state["first.0.bias"] = state["first.0.bias"] + first[:, -len(learned) :].sum(-1) @ learned
        first = state["first.0.weight"] = first[:, : -len(learned)].contiguous()
    width = {"width": len(first)} if ours else {}  # that of published files is known
    return _build("MappingNet", lambda: MappingNet(first.shape[1], **width), state, path, training)


def about(path: str | Path) -> dict[str, str]:
    """What a file of `train sadtalker.*` says of itself; nothing of other files."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError):
        return {}


def _trained_mapping(path: Path) -> tuple[dict[str, Tensor], Tensor | None]:
    """State dict of `train sadtalker.mapping`, and its learned alignment [3]."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("kind") != "sadtalker.mapping":
                raise AssetError("these are no weights of sadtalker.mapping", path, "vocalface train sadtalker.mapping")
            names = [k for k in file.keys() if k.startswith("mapping.")]  # noqa: SIM118
            state = {k.removeprefix("mapping."): file.get_tensor(k) for k in names}
            return state, file.get_tensor("alignment") if "alignment" in file.keys() else None  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise AssetError(f"Not a safetensors file ({error})", path, "vocalface train sadtalker.mapping") from error


def load_older(
    folder: str | Path, names: Iterable[str] = tuple(NETWORKS), *, training: bool = False
) -> dict[str, nn.Module]:
    """Networks of the older set of files in a folder; arguments and results as of `load_published`, names of OLDER."""
    names = tuple(names)
    for name in names:
        if name not in OLDER:
            raise ConfigError(f"The older files have no network {name!r}", "names", f"choose of {', '.join(OLDER)}")
    networks = {}
    for name in names:
        file, entry, build = OLDER[name]
        path = _existing(Path(folder) / file)
        networks[name] = _build(name, build, _entry(path, entry), path, training)
    return networks


def load_wav2lip(path: str | Path, which: str = "wav2lip", *, training: bool = False) -> nn.Module:
    """Wav2Lip (wav2lip.pth, wav2lip_gan.pth), its `syncnet` (lipsync_expert.pth) or its `critic`.

    Raises:
        AssetError: no such file, not weights alone, or keys that do not fit.
        ConfigError: another `which`.
    """
    if which not in WAV2LIP:
        raise ConfigError(f"Wav2Lip has no network {which!r}", "which", f"choose of {', '.join(WAV2LIP)}")
    path = _existing(path)
    return _build(which, WAV2LIP[which], _entry(path, "state_dict"), path, training)


# ------------------------------------------------------------------------------------------------------------- reading


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise AssetError("The checkpoint is not there", path, _FETCH)
    return path


def _entry(path: Path, name: str) -> dict[str, Tensor]:
    """One state dict of a pickled checkpoint, without the prefix that data parallel training leaves."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle can make torch raise anything
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise AssetError(f"Not a checkpoint of weights alone ({reason})", path, f"fetch it again: {_FETCH}") from error
    state = content.get(name) if isinstance(content, dict) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        held = f"it holds {_some(map(str, content))}" if isinstance(content, dict) else "it holds no dictionary"
        raise AssetError(f"The checkpoint has no weights under {name!r}: {held}", path, f"fetch it again: {_FETCH}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _build(
    name: str, build: Callable[..., nn.Module], state: dict[str, Tensor], path: Path, training: bool
) -> nn.Module:
    """The network with these weights, which are taken over, not copied."""
    spectral = build is OcclusionAwareSPADEGenerator and any(key.endswith(".weight_orig") for key in state)
    if training and build is OcclusionAwareSPADEGenerator and not spectral:
        raise AssetError(
            "These weights had their spectral norm folded in", path, "train from the published file, or unfold them"
        )
    with torch.device("meta"):
        network = build(spectral=True) if spectral else build()
    report = compare(state, network)
    if not report.fits:
        raise _misfit(name, path, report)
    if spectral and not training:
        state = fold_spectral_norm(state)
        with torch.device("meta"):
            network = build()
    network.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, assign=True
    )
    return network.train(training).requires_grad_(training)


def _misfit(name: str, path: Path, report: KeyReport) -> AssetError:
    return AssetError(f"The weights do not fit {name}: {report}", path, f"fetch the file again: {_FETCH}")
