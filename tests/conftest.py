"""Fixtures that several rooms' tests share."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest


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
