"""Two processes do what one does with the whole batch."""

import os
import subprocess
import sys

import numpy as np
import torch
from torch import nn

from vocalface.training import distributed as d

CHILD = """
import sys
import numpy as np, torch
from torch import nn
from vocalface.training import distributed as d

world = d.join()
torch.manual_seed(world.rank)  # processes start apart
net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
spare = nn.Linear(2, 2)  # in one process's graph only
d.alike(net, world), d.alike(spare, world)
data = torch.linspace(-1, 1, 60).view(20, 3)
optimiser = torch.optim.Adam([*net.parameters(), *spare.parameters()], lr=1e-2)
for step in range(6):
    x = data[d.rows(20, 8, 5, step, world)]
    loss = (net(x) - x.prod(1, keepdim=True)).square().mean()
    if world.rank == 0:
        loss = loss + 0 * spare.weight.sum()
    optimiser.zero_grad()
    loss.backward()
    d.average_gradients([*net.parameters(), *spare.parameters()], world)
    optimiser.step()
weights = torch.cat([p.detach().flatten() for p in net.parameters()])
np.save(sys.argv[1] + f"/{world.size}-{world.rank}.npy", weights.numpy())
d.leave()
"""


def run(folder, size: int, weights: int | None = None):
    env = dict(os.environ, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(20000 + os.getpid() % 20000), OMP_NUM_THREADS="1")
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)],
            env=dict(env, WORLD_SIZE=str(size), RANK=str(r), LOCAL_RANK=str(r)),
        )
        for r in range(size)
    ]
    assert [job.wait(120) for job in jobs] == [0] * size
    return [np.load(folder / f"{size}-{r}.npy") for r in range(size)]


def test_two_processes_agree_and_give_what_one_gives_with_the_whole_batch(tmp_path):
    one, (first, second) = run(tmp_path, 1), run(tmp_path, 2)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, one[0], atol=1e-6)


def test_a_batch_depends_on_seed_and_step_alone_and_is_dealt_out_whole():
    whole = d.rows(50, 12, seed=3, step=9)
    parts = [d.rows(50, 12, 3, 9, d.World(r, 4)) for r in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(set(whole)) == 12 and not np.array_equal(whole, d.rows(50, 12, 3, 10))
    assert len(d.rows(3, 8, 0, 0)) == 8


def test_alone_nothing_is_exchanged():
    net = nn.Linear(2, 2)
    net(torch.ones(1, 2)).sum().backward()
    before = net.weight.grad.clone()
    d.average_gradients(net.parameters(), d.World())
    assert torch.equal(net.weight.grad, before) and d.World().leads
