"""Where the Gaussians of a head start."""

import numpy as np
import pytest

from vocalface import presenter
from vocalface.hmtalker.config import PRESETS
from vocalface.hmtalker.data import prepare
from vocalface.hmtalker.scene import initial_fields

RIGID = [6, 197, 5, 33, 133, 362, 263]  # nose and corners of the eyes


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    obs = presenter.make(folder / "presenter", 4.0, seed=3, size=96)
    return prepare(obs, PRESETS["tiny"].replace(size=96, audio="mel", noisy_copies=0), folder / "work")


def seen_from_all_sides(m, point: int) -> np.ndarray:
    """Where a landmark lies in the head's frame by its pixels and the poses of all frames alone: least squares."""
    a, b = np.zeros((3, 3)), np.zeros(3)
    for pose, (u, v) in zip(m.poses.astype(float), m.landmarks[:, point, :2].astype(float)):
        ray = pose[:3, :3].T @ [(u - m.camera.cx) / m.camera.fx, (v - m.camera.cy) / m.camera.fy, 1]
        across = np.eye(3) - np.outer(ray, ray) / (ray @ ray)
        a, b = a + across, b + across @ (-pose[:3, :3].T @ pose[:3, 3])
    return np.linalg.solve(a, b)


def test_gaussians_start_on_the_face_that_the_poses_turn(material):
    """At a wrong depth a head that turns slides off its own pixels, and training has to repair every pose."""
    m = material
    turned = np.arccos(np.clip((np.trace(m.poses[0, :3, :3].T @ m.poses[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert turned.max() > 0.05
    face, _ = initial_fields(m, PRESETS["tiny"].replace(face_gaussians=4000), np.random.default_rng(0))
    means = face.means.detach().numpy()
    for point in RIGID:
        away = np.linalg.norm(means - seen_from_all_sides(m, point), axis=1).min()
        assert away < 0.008, f"landmark {point}: {1000 * away:.0f} mm"
