"""Stage 2 of the renderer trains: coefficients learn to move it, stage 1 stays as it is, alignments differ."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import Moving, interrupted
from safetensors.torch import load_file, save_file

from vocalface.errors import AssetError, ConfigError, ObservationsError
from vocalface.sadtalker import checkpoints
from vocalface.sadtalker import train_facevid2vid as stage1
from vocalface.sadtalker.framing import coefficient_window
from vocalface.sadtalker.official import Networks, Renderer
from vocalface.sadtalker.train_facevid2vid import picture
from vocalface.sadtalker.train_mapping import PRESETS, Mapped, MappingConfig, Trainer, get_args, load_renderer
from vocalface.sadtalker.train_mapping import Alignment as Choices
from vocalface.sadtalker.train_run import run
from vocalface.training.distributed import World

TINY = replace(PRESETS["tiny"], steps=4, critic_base=4)


@pytest.fixture(scope="module")
def runs():
    return [Moving(0), Moving(1)]


@pytest.fixture(scope="module")
def renderer_file(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("renderer") / "renderer.safetensors"
    run(stage1.Trainer(runs, replace(stage1.PRESETS["tiny"], size=32, steps=1)), path)
    return path


@pytest.fixture
def renderer(renderer_file):
    return load_renderer(renderer_file)


def parameters(renderer):
    return [p for n in (renderer.keypoints, renderer.generator, renderer.estimator) for p in n.parameters()]


def test_the_loss_falls_and_stage_1_stays_as_it_is(runs, renderer, monkeypatch):
    before = [v.clone() for n in (renderer.keypoints, renderer.generator) for v in n.state_dict().values()]
    trainer = Trainer(runs, renderer, replace(TINY, steps=20, batch=4))
    own = {k: v.clone() for k, v in trainer.net.named_parameters()}
    batch = trainer.batch(0)
    monkeypatch.setattr(trainer, "batch", lambda step: batch)
    losses = [trainer.step(k) for k in range(20)]
    assert set(losses[0]) == {"pixel", "perceptual", "keypoints", "gan", "matching", "critic"}
    first, last = (np.mean([v["keypoints"] + v["pixel"] for v in part]) for part in (losses[:3], losses[-3:]))
    assert last < 0.8 * first
    after = [v for n in (renderer.keypoints, renderer.generator) for v in n.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after))  # weights, and running means as well
    assert all(p.grad is None and not p.requires_grad for p in parameters(renderer))
    still = [k for k, v in trainer.net.named_parameters() if "weight" in k and torch.equal(v, own[k])]
    assert not still, still


@pytest.mark.parametrize("choice", get_args(Choices))
def test_every_alignment_learns_and_is_said(runs, renderer, choice):
    trainer = Trainer(runs, renderer, replace(TINY, alignment=choice, gan=0, matching=0))
    assert trainer.mapped.mapping.channels == (70 if choice == "none" else 73)
    losses = trainer.step(0)
    assert set(losses) == {"pixel", "perceptual", "keypoints"} and trainer.terms["alignment"] == choice
    first = trainer.mapped.mapping.first[0].weight
    state = trainer.maker.state[first]["exp_avg"]
    assert state[:, :70].any()
    if choice in ("given", "fixed"):
        assert state[:, 70:].any()
    if choice == "learned":  # they begin at 0, so that their weights wait for them
        assert trainer.mapped.alignment.abs().min() > 0 and not state[:, 70:].any()
    assert not any("discriminator" in k for k in trainer.net.state_dict())


def test_alignments_differ_in_what_they_heed(runs):
    torch.manual_seed(0)
    row = torch.from_numpy(np.array(runs[0].coefficients[3]))[None]
    windows = torch.from_numpy(coefficient_window(runs[0].coefficients, 8).copy())[None]

    def answer(mapped, windows, row):
        with torch.no_grad():
            return torch.cat(mapped(windows, row), 1)

    def moved(x, part):
        x = x.clone()
        x[0, part] += 0.5
        return x

    heeds = {}
    for choice in get_args(Choices):
        mapped = Mapped(choice, 8)
        plain = answer(mapped, windows, row)
        heeds[choice] = (
            not torch.equal(answer(mapped, moved(windows, slice(70, 73)), row), plain),  # the frame's own alignment
            not torch.equal(answer(mapped, windows, moved(row, slice(70, 73))), plain),  # the portrait's
        )
        assert not torch.equal(answer(mapped, moved(windows, slice(64, 70)), row), plain)
    assert heeds == {
        "none": (False, False), "given": (True, False), "fixed": (False, True), "learned": (False, False),
    }  # fmt: skip


@pytest.mark.parametrize("choice", ["learned", "given"])
def test_resuming_gives_the_same_bits_and_the_file_drives_the_renderer(runs, renderer, choice, tmp_path, monkeypatch):
    config = replace(TINY, alignment=choice, checkpoint_seconds=0.0)
    whole = Trainer(runs, renderer, config)
    for k in range(4):
        whole.step(k)
    began = interrupted(monkeypatch, Trainer, at=3)
    out = tmp_path / "mapping.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(Trainer(runs, renderer, config), out)
    run(Trainer(runs, renderer, config), out)
    assert began == [0, 1, 2, 2, 3] and not list(tmp_path.glob(".*"))
    state, unbroken = load_file(out), whole.net.state_dict()
    assert state.keys() == unbroken.keys() and all(torch.equal(v, unbroken[k]) for k, v in state.items())

    network = checkpoints.load_mapping(out)
    wanted = {"learned": 70, "given": 73}[choice]
    assert network.channels == wanted
    windows = torch.from_numpy(np.stack([coefficient_window(runs[0].coefficients, i) for i in (2, 9)]))
    with torch.no_grad():
        ours, theirs = network(windows[:, :wanted]), whole.mapped.eval()(windows, windows[:, :, 13])
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(ours, theirs))
    networks = Networks(None, None, None, network, renderer.keypoints, renderer.generator, 32)
    square = (picture(runs[0].face(0), 32).transpose(1, 2, 0) * 255).astype(np.uint8)
    drawn = list(Renderer(networks, square, runs[0].coefficients[0, :wanted])(runs[0].coefficients[:3, :wanted]))
    assert len(drawn) == 3 and drawn[0].shape == (32, 32, 3)


def test_another_renderer_is_another_run(runs, renderer):
    other = Trainer(runs, replace_weights(renderer), TINY)
    assert Trainer(runs, renderer, TINY).told != other.told


def replace_weights(renderer):
    from dataclasses import replace as changed

    return changed(renderer, digest="another")


def test_processes_share_the_batch_of_one(runs, renderer):
    trainer = Trainer(runs, renderer, TINY)
    whole, parts = trainer.batch(3), []
    for rank in (0, 1):
        trainer.world = World(rank, 2)
        parts.append(trainer.batch(3))
    assert all(torch.equal(torch.cat(pair), w) for pair, w in zip(zip(*parts), whole))


def test_what_cannot_be_trained_is_said(runs, renderer, renderer_file, tmp_path):
    with pytest.raises(ObservationsError, match="two frames"):
        Trainer([Moving(frames=1)], renderer, TINY)
    with pytest.raises(ConfigError, match="no alignment"):
        MappingConfig(alignment="some")
    with pytest.raises(AssetError, match="not there") as error:
        load_renderer(tmp_path / "none.safetensors")
    assert error.value.fix == "vocalface train sadtalker.renderer CORPUS"
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(AssetError, match="not a safetensors file"):
        load_renderer(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "sadtalker.expnet"})
    with pytest.raises(AssetError, match=r"weights of sadtalker\.expnet"):
        load_renderer(tmp_path / "other.safetensors")
    with pytest.raises(AssetError, match=r"no weights of sadtalker\.mapping"):
        checkpoints.load_mapping(renderer_file)
    with pytest.raises(AssetError, match="Not a safetensors file"):
        checkpoints.load_mapping(tmp_path / "text.safetensors")
