"""The textured z-buffer: what it must draw, and that the C++ draws what the reference draws."""

from __future__ import annotations

import numpy as np
import pytest

from vocalface.errors import ConfigError
from vocalface.render import native
from vocalface.render.mesh import render_mesh, warp
from vocalface.types import Camera

CAMERA = Camera(60.0, 60.0, 24.0, 20.0, 48, 40)
BACKENDS = [
    "reference",
    pytest.param("cpu", marks=pytest.mark.skipif(not native.available("mesh"), reason="no compiled mesh kernel")),
]


def quad(z, half=0.2, tilt=0.0):
    """A square facing the camera; `tilt` m nearer on its right side."""
    x = np.array([-half, half, half, -half])
    y = np.array([-half, -half, half, half])
    return np.stack([x, y, z - tilt * np.sign(x)], axis=1), np.array([[0, 1, 2], [0, 2, 3]])


def soup(rng, count=60):
    centres = rng.uniform((-0.35, -0.3, 0.7), (0.35, 0.3, 1.4), (count, 1, 3))
    vertices = (centres + rng.normal(0, 0.08, (count, 3, 3))).reshape(-1, 3)
    return vertices, np.arange(3 * count).reshape(-1, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_area_of_a_square_is_exact(backend):
    vertices, faces = quad(1.0)
    drawn = render_mesh(vertices, faces, CAMERA, samples=4, backend=backend)
    assert drawn.alpha.sum() == pytest.approx((0.4 * 60) ** 2, abs=1e-3)
    assert drawn.depth[20, 24] == pytest.approx(1.0)
    assert drawn.depth[0, 0] == 0 and drawn.labels[0, 0] == 0 and drawn.labels[20, 24] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_nearer_surface_wins_whatever_the_order(backend):
    near, faces = quad(0.8, 0.1)
    far, _ = quad(1.2, 0.3)
    for first, second, labels in ((near, far, (2, 3)), (far, near, (3, 2))):
        drawn = render_mesh(
            np.concatenate([first, second]), np.concatenate([faces, faces + 4]), CAMERA,
            face_labels=np.repeat(labels, 2), backend=backend,
        )  # fmt: skip
        assert drawn.labels[20, 24] == 2 and drawn.labels[20, 13] == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_textures_are_perspective_correct(backend):
    # A square whose right side is nearer: its middle in space, and in the texture, is left of its middle on screen.
    vertices, faces = quad(1.0, tilt=0.3)
    texture = np.full((2, 256, 4), 255, np.uint8)
    texture[:, :, 0] = np.arange(256)
    uv = np.array([[0.5, 0.5], [255.5, 0.5], [255.5, 1.5], [0.5, 1.5]])
    drawn = render_mesh(vertices, faces, CAMERA, uv=uv, texture=texture, samples=1, backend=backend)
    for column in (18, 24, 30):
        x = (column + 0.5 - CAMERA.cx) / CAMERA.fx  # the ray meets the plane z = 1 - 1.5 x'
        on_plane = x / (1 + 1.5 * x)
        assert drawn.color[20, column, 0] == pytest.approx((on_plane + 0.2) / 0.4, abs=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transparent_texels_let_through_and_kept_labels_alone_count(backend):
    near, faces = quad(0.8, 0.2)
    far, _ = quad(1.2, 0.3)
    texture = np.full((1, 2, 4), 255, np.uint8)
    texture[:, 0, 3] = 0
    uv = np.concatenate([np.array([[-4, 0.5], [6, 0.5], [6, 0.5], [-4, 0.5]]), np.full((4, 2), 1.9)])
    drawn = render_mesh(
        np.concatenate([near, far]), np.concatenate([faces, faces + 4]), CAMERA, uv=uv, texture=texture,
        face_labels=np.array([2, 2, 3, 3]), keep=(2,), backend=backend,
    )  # fmt: skip
    assert drawn.labels[20, 14] == 3 and drawn.labels[20, 34] == 2
    assert drawn.alpha[20, 14] == 0 and drawn.alpha[20, 34] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_behind_the_camera_is_dropped(backend):
    vertices, faces = quad(1.0)
    vertices[2, 2] = -1.0
    assert render_mesh(vertices, faces, CAMERA, backend=backend).alpha.sum() == 0


def test_a_pose_moves_world_into_the_camera():
    vertices, faces = quad(0.0)
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = 1.0
    moved = render_mesh(vertices, faces, CAMERA.posed(pose))
    assert np.array_equal(moved.alpha, render_mesh(*quad(1.0), CAMERA).alpha)


@pytest.mark.parametrize("encode", [True, False])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_compiled_kernel_draws_what_the_reference_draws(samples, encode):
    if not native.available("mesh"):
        pytest.skip("no compiled mesh kernel")
    rng = np.random.default_rng(samples)
    vertices, faces = soup(rng)
    texture = rng.integers(0, 256, (16, 16, 4)).astype(np.uint8)
    texture[:4, :, 3] = 0
    scene = {
        "light": rng.uniform(0, 1, vertices.shape), "gloss": rng.uniform(0, 0.2, vertices.shape),
        "uv": rng.uniform(-2, 18, (len(vertices), 2)), "texture": texture, "cutout": rng.random(len(faces)) < 0.7,
        "face_labels": rng.integers(1, 6, len(faces)), "keep": (1, 3, 5), "samples": samples, "encode": encode,
    }  # fmt: skip
    expected = render_mesh(vertices, faces, CAMERA, backend="reference", **scene)
    actual = [render_mesh(vertices, faces, CAMERA, backend="cpu", threads=n, **scene) for n in (1, 2)]
    for name in ("color", "alpha", "labels", "depth"):
        assert np.array_equal(getattr(actual[0], name), getattr(actual[1], name))  # threads change nothing
        away = np.abs(getattr(actual[0], name).astype(float) - getattr(expected, name)) > 2e-4
        assert away.mean() < 2e-3  # a sample on an edge may fall to either side


@pytest.mark.parametrize(
    "wrong",
    [{"light": np.ones((3, 3))}, {"uv": np.ones((4, 2))}, {"face_labels": np.ones(5)}, {"backend": "gpu"}],
)
def test_arrays_that_do_not_fit_are_refused(wrong):
    vertices, faces = quad(1.0)
    with pytest.raises(ConfigError):
        render_mesh(vertices, faces, CAMERA, **wrong)


def test_a_face_that_names_no_vertex_is_refused():
    vertices, _ = quad(1.0)
    with pytest.raises(ConfigError):
        render_mesh(vertices, np.array([[0, 1, 4]]), CAMERA)


def sheet(rng, bent=0.0):
    """A picture, the camera's size, on a sheet that covers the view down to row 34, and another one under it."""
    x, y = np.meshgrid(np.linspace(0, CAMERA.width, 9), np.linspace(0, CAMERA.height, 8))
    z = 1 + bent * np.sin(x / 9) * np.cos(y / 7)
    vertices = np.stack([(x - CAMERA.cx) * z / CAMERA.fx, (y - CAMERA.cy) * z / CAMERA.fy, z], -1).reshape(-1, 3)
    uv = np.stack([x, y], -1).reshape(-1, 2)
    corner = np.arange(8 * 9).reshape(8, 9)[:-2, :-1].ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + 10], 1), np.stack([corner, corner + 10, corner + 9], 1)]
    )
    texture = rng.integers(0, 256, (CAMERA.height, CAMERA.width, 4), np.uint8)
    under = rng.integers(0, 256, (CAMERA.height, CAMERA.width, 3), np.uint8)
    return vertices, faces, uv, texture, under


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sheet_at_rest_is_its_picture_over_the_ground_by_its_alpha(backend):
    vertices, faces, uv, texture, under = sheet(np.random.default_rng(3))
    drawn = warp(vertices, faces, CAMERA, uv=uv, texture=texture, under=under, backend=backend).astype(int)
    share = texture[..., 3:] / 255
    expected = under + share * (texture[..., :3].astype(float) - under)
    assert np.abs(drawn - expected)[:34].max() <= 1.5 and np.array_equal(drawn[35:], under[35:])
    texture[..., 3] = 255
    opaque = warp(vertices, faces, CAMERA, uv=uv, texture=texture, under=under, backend=backend).astype(int)
    assert np.abs(opaque - texture[..., :3])[:34].max() <= 1


@pytest.mark.skipif(not native.available("mesh"), reason="no compiled mesh kernel")
def test_the_fast_warp_draws_what_the_reference_draws():
    rng = np.random.default_rng(4)
    vertices, faces, uv, texture, under = sheet(rng, bent=0.05)
    vertices = vertices + rng.normal(0, 0.01, vertices.shape)
    given = {"uv": uv, "texture": texture, "under": under}
    one = warp(vertices, faces, CAMERA, backend="cpu", **given).astype(int)
    two = warp(vertices, faces, CAMERA, backend="reference", **given).astype(int)
    assert (np.abs(one - two).max(-1) > 1).mean() < 0.01  # a sample on an edge may fall on either side
    assert np.array_equal(one, warp(vertices, faces, CAMERA, backend="cpu", threads=3, **given))


def test_a_warp_says_what_does_not_fit():
    vertices, faces, uv, texture, under = sheet(np.random.default_rng(5))
    with pytest.raises(ConfigError, match="under has shape"):
        warp(vertices, faces, CAMERA, uv=uv, texture=texture, under=under[1:])
    with pytest.raises(ConfigError, match="vertex outside"):
        warp(vertices, faces + 60, CAMERA, uv=uv, texture=texture, under=under)
