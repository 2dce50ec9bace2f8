"""The loaders: what fits is loaded, what does not is named, and nothing in a pickle runs."""

import os
import pickle

import pytest
import safetensors.torch
import torch

from vocalface.errors import AssetError, ConfigError
from vocalface.nn.wav2lip import SyncNetColor
from vocalface.sadtalker import checkpoints
from vocalface.sadtalker.expnet import ExpNet
from vocalface.sadtalker.facevid2vid import OcclusionAwareSPADEGenerator
from vocalface.sadtalker.mapping import MappingNet


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def prefixed(name, network):
    return {f"{name}.{key}": value.clone() for key, value in network.state_dict().items()}


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def expnet_file(tmp_path):
    network = ExpNet()
    safetensors.torch.save_file(prefixed("audio2exp", network), tmp_path / "published.safetensors")
    return tmp_path / "published.safetensors", network


def test_one_network_of_the_published_file(expnet_file):
    path, network = expnet_file
    loaded = checkpoints.load_published(path, ["audio2exp"])
    assert list(loaded) == ["audio2exp"] and same(loaded["audio2exp"], network)
    assert not loaded["audio2exp"].training
    assert not any(p.requires_grad or p.is_meta for p in loaded["audio2exp"].parameters())
    trained = checkpoints.load_published(path, ["audio2exp"], training=True)["audio2exp"]
    assert trained.training and all(p.requires_grad for p in trained.parameters())


def test_half_precision_is_read_as_single(tmp_path):
    network = ExpNet()
    state = {k: v.half() if v.is_floating_point() else v for k, v in prefixed("audio2exp", network).items()}
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    loaded = checkpoints.load_published(tmp_path / "half.safetensors", ["audio2exp"])["audio2exp"]
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32, torch.int64}


def test_missing_unexpected_and_misshaped_keys_are_all_named(tmp_path):
    state = prefixed("audio2exp", ExpNet())
    del state["audio2exp.mapping1.bias"]
    state["audio2exp.mapping2.bias"] = torch.zeros(3)
    state["audio2exp.mapping1.weight"] = torch.zeros(64, 576)
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(AssetError) as caught:
        checkpoints.load_published(tmp_path / "odd.safetensors", ["audio2exp"])
    for part in (
        "1 missing: mapping1.bias",
        "1 unexpected: mapping2.bias",
        "1 mis-shaped: mapping1.weight [64, 576] instead of [64, 577]",
        "vocalface fetch sadtalker",
    ):
        assert part in str(caught.value)


def test_networks_that_nobody_knows_are_refused(tmp_path):
    state = prefixed("audio2exp", ExpNet()) | {"enhancer.weight": torch.zeros(1)}
    safetensors.torch.save_file(state, tmp_path / "more.safetensors")
    with pytest.raises(AssetError, match=r"1 unexpected: enhancer\.weight"):
        checkpoints.load_published(tmp_path / "more.safetensors", ["audio2exp"])


def test_long_reports_are_cut(expnet_file):
    with pytest.raises(AssetError, match=r"18 missing: encoder0\.1\.bias, .* and 12 more") as caught:
        raise checkpoints._misfit("MappingNet", "x", checkpoints.compare({}, MappingNet(70, width=4)))
    assert len(str(caught.value)) < 400
    assert str(checkpoints.KeyReport()) == "all keys fit" and checkpoints.KeyReport().fits
    with pytest.raises(AssetError, match="do not fit kp_extractor"):
        checkpoints.load_published(expnet_file[0], ["kp_extractor"])


@pytest.mark.parametrize("name", ["generator2", "he_estimator", "mapping"])
def test_unknown_names(expnet_file, name):
    with pytest.raises(ConfigError, match="kp_extractor"):
        checkpoints.load_published(expnet_file[0], [name])


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_files_that_are_no_checkpoints(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(AssetError):
        checkpoints.load_published(path, ["audio2exp"])
    with pytest.raises(AssetError):
        checkpoints.load_mapping(path)
    with pytest.raises(AssetError, match="not there"):
        checkpoints.load_mapping(tmp_path / "absent")


@pytest.fixture
def small_mapping(monkeypatch):
    monkeypatch.setattr(checkpoints, "MappingNet", lambda channels: MappingNet(channels, width=8))


@pytest.mark.parametrize("channels", [70, 73])
def test_mapping_with_its_training_state(tmp_path, small_mapping, channels):
    network = MappingNet(channels, width=8)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(1, channels, 27)).exp.sum().backward()
    optimizer.step()
    content = {"mapping": network.state_dict(), "optimizer_mapping": optimizer.state_dict(), "epoch": 229}
    torch.save(content, tmp_path / "mapping.pth.tar")
    loaded = checkpoints.load_mapping(tmp_path / "mapping.pth.tar")
    assert loaded.channels == channels and same(loaded, network)


def test_mapping_of_another_kind(tmp_path, small_mapping):
    torch.save({"generator": {}}, tmp_path / "other.pth")
    with pytest.raises(AssetError, match="no weights under 'mapping': it holds generator"):
        checkpoints.load_mapping(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(AssetError, match="no dictionary"):
        checkpoints.load_mapping(tmp_path / "list.pth")
    torch.save({"mapping": {"weight": torch.zeros(1)}}, tmp_path / "small.pth")
    with pytest.raises(AssetError, match="first"):
        checkpoints.load_mapping(tmp_path / "small.pth")


def test_nothing_in_a_pickle_runs(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"mapping": {}, "trap": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("trap.pth", "old.pth"):
        with pytest.raises(AssetError, match="weights alone"):
            checkpoints.load_mapping(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_older_files_and_parallel_training(tmp_path):
    network = ExpNet()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"model": state, "epoch": 300}, tmp_path / "auido2exp_00300-model.pth")
    assert same(checkpoints.load_older(tmp_path, ["audio2exp"])["audio2exp"], network)
    with pytest.raises(AssetError, match="epoch_20"):
        checkpoints.load_older(tmp_path, ["face_3drecon"])
    with pytest.raises(ConfigError):
        checkpoints.load_older(tmp_path, ["wav2lip"])


def test_wav2lip_family(tmp_path):
    network = SyncNetColor()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 1}, tmp_path / "lipsync_expert.pth")
    assert same(checkpoints.load_wav2lip(tmp_path / "lipsync_expert.pth", "syncnet"), network)
    with pytest.raises(AssetError, match="missing"):
        checkpoints.load_wav2lip(tmp_path / "lipsync_expert.pth")
    with pytest.raises(ConfigError):
        checkpoints.load_wav2lip(tmp_path / "lipsync_expert.pth", "other")


def test_generator_is_folded_to_draw_and_whole_to_train(tmp_path, monkeypatch):
    class Small(OcclusionAwareSPADEGenerator):
        def __init__(self, *, spectral=False):
            super().__init__(base=4, volume=4, depth=4, blocks=2, spectral=spectral)

    monkeypatch.setattr(checkpoints, "OcclusionAwareSPADEGenerator", Small)
    monkeypatch.setitem(checkpoints.NETWORKS, "generator", Small)
    trained = Small(spectral=True).eval()
    safetensors.torch.save_file(prefixed("generator", trained), tmp_path / "a.safetensors")
    drawing = checkpoints.load_published(tmp_path / "a.safetensors", ["generator"])["generator"]
    training = checkpoints.load_published(tmp_path / "a.safetensors", ["generator"], training=True)["generator"]
    assert not any("weight_orig" in key for key in drawing.state_dict()) and same(training, trained)
    arguments = torch.rand(1, 3, 32, 32), torch.zeros(1, 15, 3), torch.rand(1, 15, 3) - 0.5
    with torch.no_grad():
        pictures = [network.eval()(*arguments).prediction for network in (trained, drawing, training)]
    assert all((picture - pictures[0]).abs().max() < 1e-5 for picture in pictures)
    # Folded files load too, but cannot be trained from by accident.
    safetensors.torch.save_file(prefixed("generator", drawing), tmp_path / "b.safetensors")
    assert same(checkpoints.load_published(tmp_path / "b.safetensors", ["generator"])["generator"], drawing)
    with pytest.raises(AssetError, match="folded"):
        checkpoints.load_published(tmp_path / "b.safetensors", ["generator"], training=True)


@pytest.mark.slow
def test_full_size_files(parity, tmp_path):
    """Files of the published size, byte for byte, under weights that are a function of their keys."""
    state = {}
    for name in checkpoints.NETWORKS:
        shapes = parity.shapes[name]
        arrays = parity.fill.fill_state_dict(shapes, skip=lambda key: key == "down.weight")
        state |= {f"{name}.{key}": torch.from_numpy(array) for key, array in arrays.items()}
    state["kp_extractor.down.weight"] = checkpoints.KPDetector().down.weight
    assert len(state) == 1305
    path = tmp_path / "SadTalker_V0.0.2_256.safetensors"
    safetensors.torch.save_file(state, path)
    assert path.stat().st_size == 725_066_984
    networks = checkpoints.load_published(path)
    assert set(networks) == set(checkpoints.NETWORKS)
    weight = networks["audio2exp"].mapping1.weight
    assert torch.equal(weight, state["audio2exp.mapping1.weight"])
    with torch.no_grad():
        assert networks["kp_extractor"](torch.rand(1, 3, 256, 256)).shape == (1, 15, 3)

    for channels in (70, 73):
        arrays = parity.fill.fill_state_dict(parity.shapes[f"mapping_{channels}"])
        mapping = {key: torch.from_numpy(array) for key, array in arrays.items()}
        torch.save({"mapping": mapping, "epoch": 1}, tmp_path / "mapping.pth.tar")
        assert checkpoints.load_mapping(tmp_path / "mapping.pth.tar").channels == channels
