"""Two processes train what one trains with the whole batch: all four networks, gloo, on one machine."""

import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import test_train_expnet
import test_train_posevae
from moving import Moving
from test_interruption import SERVER

from vocalface.errors import ConfigError
from vocalface.sadtalker import (
    losses,
    posevae,
    train_expnet,
    train_facevid2vid,
    train_mapping,
    train_posevae,
    train_run,
)
from vocalface.training import distributed

pytestmark = pytest.mark.early

NAMES = ("expnet", "posevae", "renderer", "mapping")
STAGE1 = replace(train_facevid2vid.PRESETS["tiny"], size=32, batch=4, base=4, depth=2, critic_base=4)


def trainer(name, world):
    if name == "expnet":
        config = replace(train_expnet.PRESETS["tiny"], batch=4)
        clips = [test_train_expnet.clip(0), test_train_expnet.clip(1, lips=True)]
        return train_expnet.Trainer(clips, config, world, landmarks=test_train_expnet.lids())
    if name == "posevae":
        config = train_posevae.PoseVAEConfig(steps=4, batch=4)
        return train_posevae.Trainer(test_train_posevae.material(), config, world)
    runs = [Moving(0), Moving(1)]
    stage1 = train_facevid2vid.Trainer(runs, STAGE1, world)
    if name == "renderer":
        return stage1
    networks = [stage1.net[n] for n in ("kp_extractor", "generator", "he_estimator")]
    config = replace(train_mapping.PRESETS["tiny"], batch=4, width=8, critic_base=4)
    return train_mapping.Trainer(runs, train_mapping.Renderer(*networks, 32, "made here"), config, world)


def exact(value):
    """As float64: early on the pose estimator makes rounding a million times larger."""
    if isinstance(value, losses.Warp):
        value.affine, value.weights, value.controls = (exact(v) for v in (value.affine, value.weights, value.controls))
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def exact_batch(batch):
    if isinstance(batch, tuple):
        return tuple(exact(v) for v in batch)
    return replace(batch, **{k: exact(v) for k, v in vars(batch).items()})


def trained(name, world, folder):
    """Two steps. Adam's first ones are signs of gradients and would blow up what rounding leaves of a zero."""
    made = trainer(name, world)
    for old in ("maker", "critic", "optimiser"):
        if hasattr(made, old):
            parameters = [p for g in getattr(made, old).param_groups for p in g["params"]]
            setattr(made, old, torch.optim.SGD(parameters, 1e-7 if name == "renderer" else 1e-4))
    batch = made.batch
    made.batch = lambda step: exact_batch(batch(step))
    if name == "expnet":
        made.landmarks = train_expnet.LandmarkModel(made.landmarks.mean.double(), made.landmarks.basis.double())
    drawn_by = vars(made.renderer).values() if name == "mapping" else ()
    for network in (made.net, getattr(made, "perceptual", None), *drawn_by):
        if isinstance(network, torch.nn.Module):
            network.double()
    torch.manual_seed(world.rank)  # nothing may be drawn from torch's own generator
    for k in range(2):
        made.step(k)
    np.save(folder / f"{name}-{world.size}-{world.rank}.npy", weights(made))
    return made


def weights(made):
    """All parameters, then all running means."""
    return torch.cat([v.detach().flatten().double() for v in (*made.net.parameters(), *made.net.buffers())]).numpy()


def child(rank, port, folder):
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank)
    )
    torch.set_num_threads(1)
    posevae.AudioEncoder, posevae.ResUNet = test_train_posevae.SmallEar, test_train_posevae.Narrow
    world = distributed.join()
    for name in NAMES:
        made = trained(name, world, folder)
    step, latest = made.step, train_run.checkpoint.latest

    def stopped(k):
        if k == 1 and not world.leads:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(k)

    made.step = stopped
    try:
        train_run.run(made, folder / "never.safetensors")
    except KeyboardInterrupt as stop:
        (folder / f"stopped-{rank}").write_text(str(stop))
    train_run.checkpoint.latest = lambda states: (world.rank, made.state(), {})
    try:
        train_run.run(made, folder / "never.safetensors")
    except ConfigError as error:
        (folder / f"said-{rank}").write_text(error.what)
    train_run.checkpoint.latest = latest
    distributed.leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = [SERVER.Process(target=child, args=(rank, port, folder)) for rank in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_give_what_one_gives(folder, name, monkeypatch):
    monkeypatch.setattr(posevae, "AudioEncoder", test_train_posevae.SmallEar)
    monkeypatch.setattr(posevae, "ResUNet", test_train_posevae.Narrow)
    trained(name, distributed.World(), folder)
    one, first, second = (np.load(folder / f"{name}-{who}.npy") for who in ("1-0", "2-0", "2-1"))
    assert np.array_equal(first, second) and np.isfinite(first).all()
    made = trainer(name, distributed.World())
    learned = slice(sum(p.numel() for p in made.net.parameters()))
    for part in (learned, slice(learned.stop, None)):
        moved = np.linalg.norm((one - weights(made))[part])
        assert np.linalg.norm((first - one)[part]) < 1e-3 * moved and moved > 0


def test_a_signal_to_one_stops_all_after_the_same_step(folder):
    assert [(folder / f"stopped-{rank}").read_text() for rank in range(2)] == ["SIGTERM", "SIGTERM"]
    (states,) = (folder / ".never.work").iterdir()
    assert [p.name for p in states.iterdir()] == ["step_000000002.safetensors"]


def test_processes_that_find_different_checkpoints_say_so(folder):
    for rank in range(2):
        assert "different checkpoints" in (folder / f"said-{rank}").read_text()
    assert not (folder / "never.safetensors").exists()
