"""Fixtures that several rooms' tests share."""

import importlib.util
import json
import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy and PyTorch read it: each worker has its core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "hmtalker"))


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


class Parity:
    """Inputs and outputs of the published networks under weights that are a function of their keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        spec = importlib.util.spec_from_file_location("parity_fill", folder / "fill.py")
        self.fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.fill)
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.shapes = json.loads((folder / "state_dicts.json").read_text())

    def state(self, name: str) -> dict:
        """The weights that fixture `name` was made with, under their published keys, as tensors."""
        import torch

        entry = self.manifest[f"{name}.npz"]
        arrays = self.fill.fill_state_dict(
            self.shapes[entry["network"]],
            entry["gain"],
            entry["gain_overrides"],
            skip=lambda key: key == "down.weight",  # a constant, not a weight
        )
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    def arrays(self, name: str):
        """Inputs and outputs of fixture `name`, without their prefixes, as tensors."""
        import torch

        with np.load(self.folder / f"{name}.npz") as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file.files}
        return (
            {key[4:]: value for key, value in arrays.items() if key.startswith("in__")},
            {key[5:]: value for key, value in arrays.items() if key.startswith("out__")},
        )


@pytest.fixture(scope="session")
def parity() -> Parity:
    folder = Path(os.environ.get("VOCALFACE_TEST_DATA", "")) / "parity"
    if "VOCALFACE_TEST_DATA" not in os.environ or not (folder / "fill.py").is_file():
        pytest.skip("needs the parity fixtures: set VOCALFACE_TEST_DATA to a folder that has parity/")
    return Parity(folder)


@pytest.fixture(scope="module")
def no_gradients():
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def head(tmp_path_factory) -> Path:
    """A head of the drawn person beside its clip and observations, hardly trained: enough to speak."""
    import drawn

    from vocalface.hmtalker.config import PRESETS
    from vocalface.hmtalker.train import train
    from vocalface.metrics import detect

    folder = tmp_path_factory.mktemp("head")
    config = PRESETS["tiny"].replace(
        face_gaussians=200, mouth_gaussians=50, warmup_steps=4, face_steps=6, mouth_steps=5, fuse_steps=2,
        speech_steps=2, pose_refine_steps=1, audio="mel",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "open_detector", lambda: (None, "no face is looked for in this test"))
        train(drawn.observations(folder, frames=55), folder / "a.vface", config=config, consent="drawn by a test")
    return folder / "a.vface"


@pytest.fixture(scope="session")
def speech(tmp_path_factory) -> Path:
    """1.3 s of a humming that swells."""
    from vocalface import media
    from vocalface.types import Sound

    t = np.arange(16_000 * 1.3) / 16_000
    samples = (0.3 * np.sin(900 * t) * np.sin(9 * t)).astype(np.float32)
    return media.write_sound(tmp_path_factory.mktemp("speech") / "s.wav", Sound(samples, 16_000))
