"""What the trainings learn from besides clips: coefficients of frames, landmarks of a face model, Wav2Lip's lips.

Each rests on weights that may not be here; what stands in then has another name, and the run says which it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from vocalface import assets, media
from vocalface.errors import AssetError, ConfigError
from vocalface.nn.wav2lip import FACE
from vocalface.observe.corpus import SIDE, Coefficients, Fitted, Progress, Run
from vocalface.observe.indices import LANDMARKS_68
from vocalface.observe.landmarks import Landmarker
from vocalface.sadtalker.align import landmarks_68
from vocalface.sadtalker.expnet import EXPRESSIONS
from vocalface.sadtalker.portrait import Search
from vocalface.sadtalker.train_expnet import LandmarkModel

RECON = "sadtalker/SadTalker_V0.0.2_256.safetensors"
BASEL = "bfm/BFM_model_front.mat"
WAV2LIP = "wav2lip/wav2lip.pth"
SYNCNET = "wav2lip/lipsync_expert.pth"
MAPPING = "sadtalker/mapping_00229-model.pth.tar"
CHIN = 0.05  # of the face's height that Wav2Lip's box goes on below it
FOCAL, DISTANCE = 1015.0, 10.0  # px at 224 px; units of the face model, dm

Choice = Literal["auto", "deep3d", "procedural"]


# -------------------------------------------------------------------------------------------------------- coefficients
class Reconstructed:
    """Coefficients by Deep3DFaceRecon, as the published networks know them; arguments as of `corpus.Coefficients`."""

    name = "Deep3DFaceRecon"

    def __init__(self, recon: nn.Module) -> None:
        self.recon = recon

    def __call__(self, faces: Iterable[np.ndarray], points: np.ndarray, valid: np.ndarray) -> np.ndarray:
        from vocalface.sadtalker.official import coefficients_of

        return coefficients_of(((f, landmarks_68(p)) for f, p in zip(faces, points)), self.recon)


def coefficients(choice: Choice = "auto", device: str = "cpu") -> Coefficients:
    """What tells the 73 numbers of a frame: Deep3DFaceRecon where its weights are here, else the procedural face.

    Raises:
        AssetError: deep3d is asked for and absent. ConfigError: another choice.
    """
    if choice not in get_args(Choice):
        raise ConfigError(
            f"there are no coefficients {choice!r}", "--coefficients", f"use {', '.join(get_args(Choice))}"
        )
    if choice == "procedural" or (choice == "auto" and assets.find(RECON) is None):
        return Fitted()
    from vocalface.sadtalker.checkpoints import load_published

    return Reconstructed(load_published(assets.path(RECON), ["face_3drecon"])["face_3drecon"].to(device))


# ----------------------------------------------------------------------------------------------------------- landmarks
def landmark_model(name: str) -> LandmarkModel | None:
    """68 landmarks that coefficients of this name move; None where the face model is not here."""
    if name == Fitted.name:
        return procedural_landmarks()
    path = assets.find(BASEL) if name == Reconstructed.name else None
    return basel_landmarks(path) if path else None


def procedural_landmarks() -> LandmarkModel:
    """Of the project's own face, whose expressions are the first 17 coefficients of `corpus.Fitted`."""
    from vocalface.faces import load

    face, scale = load("procedural"), FOCAL / (DISTANCE / 10)  # px a metre
    mean = face.landmarks(face.neutral)[LANDMARKS_68, :2]
    moves = face.landmarks(face.expression)[:, LANDMARKS_68, :2]
    basis = np.zeros((EXPRESSIONS, 68, 2), np.float32)
    basis[: len(moves)] = moves
    return LandmarkModel(torch.from_numpy(scale * mean).float(), torch.from_numpy(scale * basis).float())


def basel_landmarks(path: Path | str) -> LandmarkModel:
    """Of Deep3DFaceRecon's BFM_model_front.mat: mean face, 64 expressions, the vertices of 68 landmarks.

    Raises:
        AssetError: not that file.
    """
    import scipy.io

    try:
        held = scipy.io.loadmat(str(path))
        rows = np.asarray(held["keypoints"], np.int64).reshape(68) - 1
        mean = np.asarray(held["meanshape"], np.float32).reshape(-1, 3)[rows, :2]
        basis = np.asarray(held["exBase"], np.float32).reshape(-1, 3, EXPRESSIONS)[rows, :2]
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise AssetError("this is no BFM_model_front.mat", path, assets.registry()[BASEL].get) from error
    scale = FOCAL / DISTANCE
    return LandmarkModel(
        torch.from_numpy(scale * mean).float(), torch.from_numpy(scale * basis.transpose(2, 0, 1).copy()).float()
    )


# ---------------------------------------------------------------------------------------------------------------- lips
def lips(
    runs: Sequence[Run], wav2lip: nn.Module, source: Coefficients, *, device: str = "cpu", search: Search | None = None,
    progress: Progress | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """Lip-only expressions [T, 64] of runs: those of Wav2Lip's video of the first frame saying the run's speech.

    They are kept beside the runs, so that each is made once.

    Raises:
        AssetError: faces have to be searched, and the landmarker is not here.
    """
    todo = [r for r in runs if not kept(r).is_file()]
    if todo and search is None:
        with Landmarker() as landmarker:
            return lips(runs, wav2lip, source, device=device, search=landmarker, progress=progress)
    wav2lip = wav2lip.to(device)
    for done, run in enumerate(todo):
        faces = list(spoken(run, wav2lip, device))
        points = np.repeat(np.asarray(run.landmarks[:1]), len(faces), 0)
        valid = np.zeros(len(faces), bool)
        for k, face in enumerate(faces):
            if found := search(face):
                points[k], valid[k] = found[0].landmarks, True
        valid[0] = True  # the corpus saw that frame
        made = source(iter(faces), points, valid)[:, :EXPRESSIONS]
        part = kept(run).with_suffix(".part")
        with open(part, "wb") as file:
            np.save(file, made)
        part.replace(kept(run))
        if progress:
            progress(done + 1, len(todo), "lips")
    return [np.load(kept(run)) for run in runs]


def kept(run: Run) -> Path:
    return Path(f"{run.stem}.lips.npy")


def face_box(points: np.ndarray) -> tuple[int, int, int, int]:
    """Where Wav2Lip looks: left, top, right, bottom about landmarks [478, 3], px of a run's faces."""
    low, high = points[:468, :2].min(0), points[:468, :2].max(0)
    high[1] += CHIN * (high[1] - low[1])
    x0, y0 = np.maximum(np.floor(low), 0).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(high), SIDE).astype(int).tolist()
    return x0, y0, x1, y1


@torch.no_grad()
def spoken(run: Run, wav2lip: nn.Module, device: str = "cpu", batch: int = 32):
    """Wav2Lip's faces [256, 256, 3] uint8 of a run, all from its first frame."""
    face = run.face(0)
    x0, y0, x1, y1 = face_box(np.asarray(run.landmarks[0]))
    square = media.resize(np.ascontiguousarray(face[y0:y1, x0:x1]), FACE, FACE)
    picture = torch.from_numpy(square[..., ::-1].copy()).to(device).permute(2, 0, 1).float() / 255  # blue first
    hidden = picture.clone()
    hidden[:, FACE // 2 :] = 0
    both = torch.cat([hidden, picture])
    for start in range(0, len(run), batch):
        stop = min(start + batch, len(run))
        # Wav2Lip hears a frame from one frame before it on, ExpNet from two before.
        heard = run.mel(start + 1, min(stop + 1, len(run)))
        heard = np.concatenate([heard, heard[-1:]])[: stop - start] if len(heard) else run.mel(start, stop)
        made = wav2lip(torch.from_numpy(heard).to(device), both.expand(stop - start, -1, -1, -1))
        mouths = (made.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        for mouth in mouths:
            out = face.copy()
            out[y0:y1, x0:x1] = media.resize(np.ascontiguousarray(mouth[..., ::-1]), x1 - x0, y1 - y0)
            yield out
