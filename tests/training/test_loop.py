import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from vocalface.errors import VocalfaceError
from vocalface.training.loop import Loop, SkipStep, finite_gradients, step_optimizers


def test_runs_every_step_and_saves_by_count_and_at_the_end():
    steps, saves = [], []
    Loop(10, steps.append, save_fn=saves.append, checkpoint_every_steps=4, checkpoint_every_seconds=None).run(start=3)
    assert steps == list(range(3, 10)) and saves == [4, 8, 10]


def test_saves_by_time():
    now, saves = [0.0], []

    def step(_):
        now[0] += 10

    Loop(10, step, save_fn=saves.append, checkpoint_every_seconds=30, clock=lambda: now[0]).run()
    assert saves == [3, 6, 9, 10]


def test_finished_run_does_nothing():
    steps, saves = [], []
    Loop(5, steps.append, save_fn=saves.append, checkpoint_every_steps=1).run(start=5)
    assert steps == [] and saves == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_and_saves(number):
    done, saves = [], []

    def step(i):
        if i == 2:
            os.kill(os.getpid(), number)
        done.append(i)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        Loop(10, step, save_fn=saves.append).run()
    assert done == [0, 1, 2] and saves == [3] and signal.getsignal(number) is before


def test_second_signal_stops_at_once():
    def step(_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt):
        Loop(10, step).run()


def test_step_with_bad_gradients_changes_nothing():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    seen = []

    def step(i):
        loss = (weight * (float("nan") if i == 1 else 1.0)).sum()
        loss.backward()
        before = weight.detach().clone()
        try:
            step_optimizers(optimizer)
        finally:
            seen.append(not torch.equal(before, weight))
            assert weight.grad is None

    loop = Loop(4, step)
    loop.run()
    assert seen == [True, False, True, True] and loop.skipped == 1


def test_divergence_is_an_error():
    def step(_):
        raise SkipStep("gradients are not finite")

    with pytest.raises(VocalfaceError, match="5 steps in a row") as error:
        Loop(100, step, max_skips=5).run()
    assert error.value.fix


def test_finite_gradients():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    assert finite_gradients([a, b])
    a.grad = torch.tensor([1.0, 2.0])
    assert finite_gradients([a, b])
    b.grad = torch.tensor([float("inf"), -float("inf")])
    assert not finite_gradients([a, b])


TRAINING = """
    import sys, numpy, torch
    from pathlib import Path
    from vocalface.training import checkpoint, rng
    from vocalface.training.loop import Loop, step_optimizers

    folder, stop = Path(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(0)
    numpy.random.seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    data, order, start = torch.randn(9, 4), rng.Order(9, seed=1), 0
    if found := checkpoint.latest(folder):
        start, state, _ = found
        net.load_state_dict(state["net"]); optimizer.load_state_dict(state["optimizer"]); rng.restore(state["rng"])

    def save(done):
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng.state()}
        checkpoint.save(folder, done, state)

    def step(i):
        if i == stop:
            print("reached", i, "from", start, flush=True)
            sys.stdin.readline()  # held here until the kill
        net(data[order[i]]).square().sum().backward()
        step_optimizers(optimizer)

    Loop(40, step, save_fn=save, checkpoint_every_steps=7).run(start)
"""


def test_killed_run_resumes_to_the_same_parameters(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TRAINING))

    def run(folder, stop):
        return subprocess.Popen(
            [sys.executable, script, tmp_path / folder, str(stop)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip

    whole, killed = run("whole", -1), run("killed", 25)
    assert killed.stdout.readline() == "reached 25 from 0\n"
    killed.kill()
    killed.communicate()
    again = run("killed", 21)
    assert again.stdout.readline() == "reached 21 from 21\n"
    again.communicate("go\n")
    whole.communicate()
    assert whole.returncode == again.returncode == 0
    files = [(tmp_path / folder / "step_000000040.safetensors").read_bytes() for folder in ("whole", "killed")]
    assert files[0] == files[1]
