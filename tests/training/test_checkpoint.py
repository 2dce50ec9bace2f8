import numpy as np
import pytest
import torch

from vocalface.errors import OutputError
from vocalface.training import checkpoint, files


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            same(a[k], b[k])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            same(x, y)
    elif isinstance(a, (torch.Tensor, np.ndarray)):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = (x.view(torch.int16) if getattr(x, "dtype", 0) == torch.bfloat16 else x for x in (a, b))
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    else:
        assert a == b or a != a


STATE = {
    "net": {"w": torch.randn(3, 4).t(), "half": torch.randn(5).half(), "b16": torch.randn(3).bfloat16()},
    "ints": torch.arange(3), "flags": torch.tensor([True, False]), "zero": torch.tensor(0.1), "none": torch.zeros(0, 3),
    "array": np.arange(6, dtype=np.uint16).reshape(2, 3)[:, ::2], "scalar": np.float32(0.1),
    "numbers": [0.1, 1e-300, float("inf"), 3, 2**100, True, None, "über"], "betas": (0.9, 0.99), "empty": {},
    0: {1: "int keys"},
}  # fmt: skip


def test_round_trip_is_exact(tmp_path):
    checkpoint.save(tmp_path, 7, STATE, {"preset": "demo"})
    step, state, meta = checkpoint.latest(tmp_path)
    assert step == 7 and meta == {"preset": "demo"}
    same(state, STATE)


def test_optimizer_state_continues_exactly(tmp_path):
    def make():
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        return net, torch.optim.AdamW(net.parameters(), lr=0.1, betas=(0.9, 0.99), amsgrad=True)

    def train(net, optimizer, steps):
        for i in steps:
            optimizer.zero_grad()
            net(torch.full((1, 3), i + 1.0)).square().sum().backward()
            optimizer.step()

    net, optimizer = make()
    train(net, optimizer, range(3))
    checkpoint.save(tmp_path, 3, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})
    train(net, optimizer, range(3, 6))

    def resumed(with_optimizer):
        other, other_optimizer = make()
        _, state, _ = checkpoint.latest(tmp_path)
        other.load_state_dict(state["net"])
        if with_optimizer:
            other_optimizer.load_state_dict(state["optimizer"])
        train(other, other_optimizer, range(3, 6))
        return other.state_dict()

    wanted = net.state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in resumed(True).items())
    assert not torch.equal(resumed(False)["weight"], net.weight)  # the moments matter


def test_keeps_the_last_two(tmp_path):
    for step in (1, 2, 3, 10):
        checkpoint.save(tmp_path, step, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000000003.safetensors", "step_000000010.safetensors"]
    assert checkpoint.latest(tmp_path)[0] == 10


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "garbage"])
def test_torn_file_is_passed_over(tmp_path, damage):
    checkpoint.save(tmp_path, 1, {"x": torch.ones(1000)})
    path = checkpoint.save(tmp_path, 2, {"x": torch.zeros(1000)})
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-100] ^= 1
    path.write_bytes({"truncated": data[:-7], "empty": b"", "flipped": data, "garbage": b"\xff" * 300}[damage])
    step, state, _ = checkpoint.latest(tmp_path)
    assert step == 1 and torch.equal(state["x"], torch.ones(1000))


def test_nothing_to_resume(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "absent") is None


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        checkpoint.save(tmp_path / "file" / "run", 1, {})


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"x": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match="No space"):
        checkpoint.save(tmp_path, 2, {"x": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000001.safetensors"]


def test_unknown_kind_is_refused(tmp_path):
    with pytest.raises(TypeError, match="object"):
        checkpoint.save(tmp_path, 1, {"x": object()})
