"""The articulatory network: NumPy runs what torch defines, and training writes weights that load."""

import numpy as np
import pytest
import torch

from vocalface.articulation import tools
from vocalface.articulation.train import ArticulationConfig, ArticulationNet, train
from vocalface.errors import ConfigError, OutputError
from vocalface.observe.speech import articulatory, extractor
from vocalface.presenter.articulation import SYMBOLS


def test_numpy_runs_the_network_that_torch_defines():
    torch.manual_seed(0)
    config = ArticulationConfig(hidden=24, dilations=(1, 3))
    defined = ArticulationNet(config).eval()
    tensors = {k: v.numpy() for k, v in defined.state_dict().items()}
    extra = {"hidden_mean": np.zeros(24), "hidden_std": np.ones(24), "motion_mean": np.full(10, 0.3)}
    extra |= {"motion_std": np.full(10, 2.0), "prior_mean": np.zeros(80)}
    network = articulatory.Network({**tensors, **extra}, {"dilations": [1, 3], "lead": 0})
    columns = np.random.default_rng(0).normal(size=(50, 80)).astype(np.float32)
    hidden, motions, _ = defined(torch.from_numpy(columns.T[None]))
    ours = network(columns)
    assert len(ours) == 50 - network.left - network.right
    assert np.allclose(ours, hidden[0].T.detach().numpy(), atol=1e-5)
    assert np.allclose(network.motions(ours), motions[0].T.detach().numpy() * 2 + 0.3, atol=1e-5)


def test_training_writes_weights_that_load(tmp_path):
    config = ArticulationConfig(hidden=16, dilations=(1, 2), steps=30, batch=4, columns=64, lead=1)
    seen = []
    figures = train(tmp_path / "a.safetensors", hours=0.012, config=config, progress=lambda *a: seen.append(a[0]))
    feature = extractor("articulatory", str(tmp_path / "a.safetensors"))
    assert feature.dim == 16 + 80 and set(seen) == {"speech", "training"}
    assert set(figures["r"]) == set(articulatory.MOTIONS) and "formant" in figures["minutes"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors"]
    with pytest.raises(OutputError):
        train(tmp_path / "no" / "a.safetensors")
    with pytest.raises(ConfigError):
        train(tmp_path / "a.safetensors", hours=0)


def test_ipa_becomes_known_phones():
    assert tools.phones_of_ipa("tʃɪɹp") == ["ch", "ih", "r", "p"]
    assert tools.phones_of_ipa("oʊˈmaːɪ̯") == ["ow", "m", "aa", "ih"]
    known = {*tools._PAIRS.values(), *tools._SINGLES.values()}
    assert known <= set(SYMBOLS)
