"""Pose refinement through the rasteriser finds a known pose again."""

import numpy as np
import pytest
import torch

from vocalface.hmtalker.refine import refine
from vocalface.hmtalker.scene import Poses, draw
from vocalface.types import Camera, Gaussians

SIZE = 96


def cloud(n=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(n, 3, generator=g) * torch.tensor([0.05, 0.06, 0.02])
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(n, 1)
    return Gaussians(
        means, quats, torch.full((n, 3), 0.006), torch.full((n,), 0.8), torch.rand(n, 3, generator=g)
    )  # fmt: skip


def scene():
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3] = np.diag([1, -1, -1])
    pose[2, 3] = 0.6
    camera = Camera(300, 300, SIZE / 2, SIZE / 2, SIZE, SIZE)
    poses, gaussians = Poses(pose[None], camera), cloud()

    def picture(delta):
        image, alpha = draw(gaussians, poses.at(0, delta), camera, (0, 0, SIZE, SIZE))
        return image + 0.3 * (1 - alpha)[..., None]

    return picture


def test_a_known_pose_is_found():
    picture = scene()
    truth = torch.tensor([0.02, -0.015, 0.01, 0.001, -0.0015, 0.006])
    found, left = refine(picture, picture(truth), torch.ones(SIZE, SIZE, dtype=torch.bool), torch.zeros(6), 6)
    assert left < 1e-3
    np.testing.assert_allclose(found[:3], truth[:3], atol=2e-3)
    np.testing.assert_allclose(found[3:], truth[3:], atol=1e-3)


def test_no_step_makes_the_picture_worse_and_masked_pixels_do_not_count():
    picture = scene()
    target = picture(torch.tensor([0.01, 0, 0, 0, 0, 0.003]))
    keep = torch.ones(SIZE, SIZE, dtype=torch.bool)
    keep[60:] = False
    spoilt = target.clone()
    spoilt[60:] = 1.0
    start = torch.tensor([0.0, 0.01, 0, 0.001, 0, 0])
    error = [((picture(refine(picture, spoilt, keep, start, n)[0]) - target)[:60]).abs().mean() for n in (0, 1, 3)]
    assert error[0] > error[1] >= error[2]
    same, left = refine(picture, target, keep, start, 3)
    assert left == pytest.approx(float(((picture(same) - target) * keep[..., None]).abs().mean()), rel=1e-4)
    torch.testing.assert_close(refine(picture, spoilt, keep, start, 3)[0], same)
    assert refine(picture, target, keep & False, start, 3) == (start, 0.0)
