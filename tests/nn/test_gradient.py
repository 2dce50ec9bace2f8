import pytest
import torch

from vocalface.nn.gradient import gradient_l1


def test_blind_to_a_constant_and_to_nothing_else():
    x = torch.rand(32, 24, 3)
    assert gradient_l1(x, x).item() == 0
    assert gradient_l1(x, x + 0.2).item() == pytest.approx(0, abs=1e-6)
    assert gradient_l1(x, x.flip(0)).item() > 0.1


def test_ramp():
    ramp = torch.arange(16.0)[:, None, None].expand(16, 16, 1) / 16
    # slope 1/16, 2/16, 4/16 on three octaves, along one axis
    assert gradient_l1(ramp, torch.zeros_like(ramp)).item() == pytest.approx((1 + 2 + 4) / 16 / 3)


def test_sees_blur():
    edge = (torch.arange(32.0)[:, None, None].expand(32, 32, 1) > 15).float()
    pool = torch.nn.functional.avg_pool2d
    wide, wider = (pool(edge[None, ..., 0], k, 1, k // 2, count_include_pad=False)[0, ..., None]
                   for k in (3, 9))  # fmt: skip
    assert 0 < gradient_l1(edge, wide) < gradient_l1(edge, wider)


def test_gradcheck():
    x, y = torch.rand(2, 2, 9, 8, 2, dtype=torch.float64)
    torch.autograd.gradcheck(lambda x: gradient_l1(x, y), x.requires_grad_())


def test_tiny_image():
    assert gradient_l1(torch.rand(3, 3, 3), torch.rand(3, 3, 3)).item() == 0
