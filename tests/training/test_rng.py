import numpy as np
import pytest
import torch

from vocalface.training import checkpoint, rng
from vocalface.training.rng import Order


def test_each_epoch_sees_every_item_once():
    order = Order(7, seed=3)
    epochs = np.array([order[i] for i in range(35)]).reshape(5, 7)
    assert (np.sort(epochs, 1) == np.arange(7)).all()
    assert len({tuple(e) for e in epochs}) > 1


def test_order_is_a_function_of_seed_and_step():
    forward, anywhere = Order(5, seed=1), Order(5, seed=1)
    expected = [forward[i] for i in range(20)]
    steps = np.random.default_rng(0).permutation(20)
    assert [anywhere[int(i)] for i in steps] == [expected[i] for i in steps]
    assert [Order(50, seed=2)[i] for i in range(50)] != [Order(50, seed=1)[i] for i in range(50)]
    assert [Order(50, seed=1, stream=1)[i] for i in range(50)] != [Order(50, seed=1)[i] for i in range(50)]


def test_empty_order():
    with pytest.raises(ValueError):
        Order(0)


def test_draws_at_a_step_need_no_state():
    assert rng.at(0, 5).random() == rng.at(0, 5).random()
    assert len({rng.at(s, i, k).random() for s in (0, 1) for i in (0, 1) for k in (0, 1)}) == 8
    a, b = (torch.rand(3, generator=rng.torch_at(0, 5)) for _ in range(2))
    assert torch.equal(a, b)


def test_generators_continue_from_a_checkpoint(tmp_path):
    named, own = np.random.default_rng(4), torch.Generator().manual_seed(4)

    def draws():
        return torch.rand(2).tolist(), np.random.randn(3).tolist(), named.random(), torch.rand(1, generator=own).item()

    draws()
    checkpoint.save(tmp_path, 1, rng.state(named=named, own=own))
    expected = draws()
    draws()
    rng.restore(checkpoint.latest(tmp_path)[1], named=named, own=own)
    assert draws() == expected
