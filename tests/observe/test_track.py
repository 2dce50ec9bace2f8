"""Pose, action units, cuts, crops and the folder, on faces whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vocalface import media
from vocalface.errors import AssetError, FaceError, ObservationsError
from vocalface.observe import action_units, datasets, grade, landmarks, pose, shots, store
from vocalface.observe.indices import BLENDSHAPES, LANDMARKS_68, LIPS_INNER, RIGID
from vocalface.types import AU_NAMES, Camera, CropBox, FaceTrack, Sound

SIZE = 512


def face_points(seed=0) -> np.ndarray:
    """A made-up 478-point face in the head frame, metres, symmetric where pose looks."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, (478, 2)) * [0.07, 0.1]
    points = np.column_stack([a, 0.05 * np.sqrt(np.clip(1 - (a[:, 0] / 0.1) ** 2 - (a[:, 1] / 0.14) ** 2, 0, 1))])
    fixed = {33: (-0.045, 0.02, 0.02), 263: (0.045, 0.02, 0.02), 234: (-0.07, 0, -0.01), 454: (0.07, 0, -0.01),
             10: (0, 0.09, 0.03), 152: (0, -0.1, 0.03)}  # fmt: skip
    for k, v in fixed.items():
        points[k] = v
    return points - (points[234] + points[454]) / 2


def poses(count=40, seed=0) -> np.ndarray:
    t = np.arange(count)
    w = np.stack([0.1 * np.sin(t / 9), 0.3 * np.sin(t / 7), 0.08 * np.sin(t / 5)], axis=1)
    r = pose.rotations(w) @ np.diag([1.0, -1, -1])
    shift = np.stack([0.02 * np.sin(t / 11), 0.01 * np.cos(t / 8), 0.75 + 0.03 * np.sin(t / 10)], axis=1)
    out = np.tile(np.eye(4), (count, 1, 1))
    out[:, :3, :3], out[:, :3, 3] = r, shift
    return out


def see(points: np.ndarray, w2c: np.ndarray, camera: Camera) -> np.ndarray:
    """Project [478, 3] or [T, 478, 3] into landmarks [T, 478, 3] with MediaPipe-like relative depth."""
    points = np.broadcast_to(points, (len(w2c), *points.shape[-2:]))
    p = np.einsum("tij,tkj->tki", w2c[:, :3, :3], points) + w2c[:, None, :3, 3]
    u = camera.fx * p[..., 0] / p[..., 2] + camera.cx
    v = camera.fy * p[..., 1] / p[..., 2] + camera.cy
    z = (p[..., 2] - p[..., 2].mean(1, keepdims=True)) * camera.fx / p[..., 2].mean(1, keepdims=True)
    return np.stack([u, v, z], axis=-1).astype(np.float32)


CAMERA = Camera(1024, 1024, 256, 256, SIZE, SIZE)


def test_bundle_adjustment_explains_the_landmarks():
    truth = poses()
    seen = see(face_points(), truth, CAMERA)
    noise = np.random.default_rng(1).normal(0, 0.4, (*seen.shape[:2], 2))
    seen[..., :2] += noise
    found = pose.track_pose(seen, np.ones(len(seen), bool), SIZE, (256.0, 256.0))
    assert found.rmse < 1.0
    turn = np.einsum("tji,tjk->tik", truth[:1, :3, :3], truth[:, :3, :3])
    mine = np.einsum("tji,tjk->tik", found.poses[:1, :3, :3], found.poses[:, :3, :3])
    off = np.degrees(np.arccos(np.clip((np.einsum("tij,tij->t", turn, mine) - 1) / 2, -1, 1)))
    assert np.median(off) < 1.5, "relative rotations are those of the truth"
    r = found.poses[:, :3, :3]
    assert np.allclose(r @ r.transpose(0, 2, 1), np.eye(3), atol=1e-5) and np.allclose(np.linalg.det(r), 1, atol=1e-5)
    assert (found.poses[:, 2, 3] > 0).all() and np.allclose(found.poses[:, 3], [0, 0, 0, 1])
    assert (r[:, 1, 1] < 0).all() and (r[:, 2, 2] < 0).all(), "+y of the head is up, +z comes towards the camera"


def test_smoothing_calms_noise_but_not_across_a_jump():
    truth = poses(60)
    truth[30:, 0, 3] += 0.05
    seen = see(face_points(), truth, CAMERA)
    seen[..., :2] += np.random.default_rng(1).normal(0, 0.5, (*seen.shape[:2], 2))
    found = pose.track_pose(seen, np.ones(60, bool), SIZE, (256.0, 256.0), [30])
    step = np.linalg.norm(np.diff(found.poses[:, :3, 3], axis=0), axis=1)
    assert step[29] > 0.03 and np.delete(step, 29).max() < 0.02


def test_opening_the_lips_moves_their_units_only():
    points = np.tile(face_points(), (30, 1, 1))
    for row in (82, 13, 312):
        points[:, row] = (0, -0.045, 0.04)
    opening = np.linspace(0, 0.019, 30)
    for row in (87, 14, 317):
        points[:, row] = np.stack([0 * opening, -0.045 - opening, 0.04 + 0 * opening], axis=1)
    w2c = poses(30)
    units = action_units.from_landmarks(
        see(points, w2c, CAMERA), np.zeros((30, 52), np.float32), w2c.astype(np.float32), CAMERA, np.ones(30, bool)
    )
    au25 = units[:, AU_NAMES.index("AU25")]
    assert np.corrcoef(au25, opening)[0, 1] > 0.99 and 4 < au25[-1] <= 5 and au25[0] < 0.3
    assert units[:, AU_NAMES.index("AU20")].max() < 0.5 and units[:, AU_NAMES.index("AU45")].max() == 0


def test_the_jaw_is_seen_by_landmarks_and_blendshape_together():
    points = np.tile(face_points(), (40, 1, 1))
    drop = 0.010 * np.sin(np.linspace(0, np.pi, 40))
    points[:, [199, 200, 175], 1] -= drop[:, None]
    shapes = np.zeros((40, 52), np.float32)
    shapes[:, BLENDSHAPES.index("jawOpen")] = drop * 1000 / action_units.JAW
    w2c = poses(40)
    units = action_units.from_landmarks(see(points, w2c, CAMERA), shapes, w2c, CAMERA, np.ones(40, bool))
    au26 = units[:, AU_NAMES.index("AU26")]
    assert np.corrcoef(au26, drop)[0, 1] > 0.99 and au26.max() == pytest.approx(5 * 10 / 14, abs=0.6)


def test_a_blink_is_no_tightening_of_the_lids():
    shapes = np.zeros((40, 52), np.float32)
    for name in ("eyeBlink", "eyeSquint"):
        for side in ("Left", "Right"):
            shapes[18:22, BLENDSHAPES.index(name + side)] = 0.9
    w2c = poses(40)
    units = action_units.from_landmarks(see(face_points(), w2c, CAMERA), shapes, w2c, CAMERA, np.ones(40, bool))
    assert units[20, AU_NAMES.index("AU45")] > 4 and units[20, AU_NAMES.index("AU07")] < 0.1


def test_lifted_points_are_the_faces_own():
    points, w2c = face_points(), poses(40)
    lifted = action_units.lift(see(points, w2c, CAMERA), w2c, CAMERA)
    some = [33, 263, 61, 291, 13, 152]
    off = np.linalg.norm(lifted[:, some] - lifted[:, some].mean(0), axis=-1)
    assert np.median(off) < 0.002, "they stand still while the head turns"
    across = lifted[:, 263, 0] - lifted[:, 33, 0]
    assert np.median(across) == pytest.approx(0.09, abs=0.004)


def test_long_clips_are_solved_in_parts(monkeypatch):
    truth = poses(50)
    seen = see(face_points(), truth, CAMERA)
    whole = pose.track_pose(seen, np.ones(50, bool), SIZE, (256.0, 256.0)).poses
    monkeypatch.setattr(pose, "BATCH", 16)
    assert np.allclose(pose.track_pose(seen, np.ones(50, bool), SIZE, (256.0, 256.0)).poses, whole, atol=1e-6)


def table(path, rows, blank=" "):
    names = ["frame", "confidence", "success", *(f"{a}_r" for a in AU_NAMES)]
    lines = [", ".join(names) if blank else ",".join(names)]
    for k, (success, value) in enumerate(rows):
        lines.append(", ".join(map(str, [k + 1, 0.98, success, *[value] * 17])))
    path.write_text("\n".join(lines))
    return path


def test_openface_table_is_read_by_name_and_failed_rows_are_filled(tmp_path):
    rows = [(1, 1.0), (0, 9.0), (1, 3.0), (1, 3.0)]
    units = action_units.from_table(table(tmp_path / "au.csv", rows), 4)
    assert units.shape == (4, 17) and units[:, 0].tolist() == [1.0, 2.0, 3.0, 3.0]
    with pytest.raises(ObservationsError, match="4 rows of action units for 9 frames"):
        action_units.from_table(tmp_path / "au.csv", 9)
    (tmp_path / "bad.csv").write_text("frame,AU01_r\n1,2\n")
    with pytest.raises(ObservationsError, match="columns are missing"):
        action_units.from_table(tmp_path / "bad.csv", 1)


def test_cuts_and_jumps_are_told_apart():
    rng = np.random.default_rng(0)
    room, other = rng.integers(0, 256, (2, 6, 6, 3)).repeat(16, 1).repeat(16, 2).astype(np.uint8)

    def frame(background, x):
        image = background.copy()
        image[30:96, x : x + 50] = (230, 180, 150)
        return shots.signature(image)

    moving = [frame(room, 20 + k // 4) for k in range(20)]
    jump = [frame(room, 45) for _ in range(20)]
    cut = [frame(255 - other, 20) for _ in range(20)]
    found, _ = shots.find(moving + jump + cut)
    assert (40, 60) in found and found[0][0] == 0
    assert shots.find(moving)[0] == [(0, 20)]
    assert shots.segments((10, 50), [5, 20, 50]) == [(0, 10), (10, 40)]


def test_automatic_crop_is_square_inside_and_holds_the_head():
    boxes = np.tile([800.0, 200, 1000, 450], (10, 1))
    crop = landmarks.automatic_crop(boxes, 1920, 1080)
    assert crop.side % 2 == 0 and crop.x >= 0 and crop.x + crop.side <= 1920 and crop.y >= 0
    assert crop.side == pytest.approx(2.2 * 250, rel=0.05)
    assert crop.x < 800 - 40 and crop.x + crop.side > 1040 and crop.y < 150 and crop.y + crop.side > 560
    assert landmarks.automatic_crop(np.tile([100.0, 80, 400, 460], (5, 1)), 512, 512) == CropBox(0, 0, 512)


def fake(x, size):
    points = np.tile(np.array([x, 0, 0], np.float32), (478, 1))
    points[1, :2] = (x + size, size)
    return landmarks.Face(points, np.zeros(52, np.float32))


def test_choosing_a_face():
    with pytest.raises(FaceError, match="no face"):
        landmarks.choose([(0, []), (5, [])], "largest", "clip")
    two = [(k, [fake(300, 100), fake(0, 95)]) for k in range(5)]
    with pytest.raises(FaceError, match="2 faces"):
        landmarks.choose(two, "largest", "clip")
    assert landmarks.choose(two, "0", "clip")[0, 0] == 0 and landmarks.choose(two, "1", "clip")[0, 0] == 300
    one_and_passer_by = [(k, [fake(300, 100), fake(0, 30)]) for k in range(5)]
    assert landmarks.choose(one_and_passer_by, "largest", "clip")[0, 0] == 300


def test_unseen_frames_are_interpolated_in_place():
    values = np.array([[0.0], [9.0], [9.0], [3.0], [9.0]])
    out = landmarks.fill(values, np.array([True, False, False, True, False]))
    assert out[:, 0].tolist() == [0, 1, 2, 3, 3]
    assert landmarks.runs(np.array([1, 1, 0, 1, 0], bool)) == [(0, 2), (3, 4)]


def make(folder, frames=30, size=64):
    """A tiny clip and its observations."""
    folder.mkdir(parents=True, exist_ok=True)
    tone = Sound((0.2 * np.sin(np.arange(frames * 640) * 0.1)).astype(np.float32), 16_000)
    clip = folder / "clip.mp4"
    rng = np.random.default_rng(0)
    with media.VideoWriter(clip, size, size, sound=tone, crf=1) as video:
        for k in range(frames):
            video.write(np.full((size, size, 3), min(40 + 4 * k, 255), np.uint8))
    writer = store.ObservationsWriter(folder / "clip.obs", size)
    labels = rng.integers(0, 6, (frames, size, size)).astype(np.uint8)
    alpha = rng.integers(0, 256, (frames, size, size)).astype(np.uint8)
    for k in range(frames):
        torso = np.zeros((size, size, 4), np.uint8)
        torso[40:] = (10, 200, 30, 255)
        writer.add(labels[k], alpha[k], torso)
    camera = Camera(100, 100, size / 2, size / 2, size, size)
    points = np.tile(see(face_points(), poses(1), Camera(100, 100, size / 2, size / 2, size, size)), (frames, 1, 1))
    track = FaceTrack(
        np.ones(frames, bool), points, np.zeros((frames, 52), np.float32), np.zeros((frames, 17), np.float32),
        np.tile(poses(1), (frames, 1, 1)).astype(np.float32),
    )  # fmt: skip
    return writer.finish(
        clip=clip, clip_hash=store.file_hash(clip), crop=CropBox(0, 0, size), camera=camera, track=track,
        plate=np.full((size, size, 3), 99, np.uint8), shots=[(0, frames)], info={"key": 1},
    ), labels, alpha  # fmt: skip


def test_folder_round_trip(tmp_path):
    obs, labels, alpha = make(tmp_path / "a")
    again = store.load(obs.folder)
    assert len(again) == 30 and np.array_equal(again.track.landmarks, obs.track.landmarks)
    for frame in store.frames(again, 7, 12):
        assert np.array_equal(frame.labels, labels[frame.index]) and np.array_equal(
            frame.head_alpha, alpha[frame.index]
        )
        assert abs(int(frame.image[5, 5, 0]) - (40 + 4 * frame.index)) <= 2
        assert (frame.behind[:30] == 99).all() and np.abs(frame.behind[50, 5].astype(int) - [10, 200, 30]).max() <= 6
    assert frame.index == 11
    torsos = list(store.torsos(again))
    assert len(torsos) == 30 and np.array_equal(np.dstack(torsos[11]), frame.torso)


def test_a_folder_moves_with_its_clip_and_refuses_what_is_torn(tmp_path):
    make(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    moved = store.load(tmp_path / "b" / "clip.obs")
    assert moved.clip == (tmp_path / "b" / "clip.mp4").resolve()
    (tmp_path / "b" / "clip.mp4").unlink()
    with pytest.raises(ObservationsError, match="gone"):
        store.load(tmp_path / "b" / "clip.obs")
    header = tmp_path / "b" / "clip.obs" / "observations.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "schema": 99}))
    with pytest.raises(ObservationsError, match="newer"):
        store.load(header.parent)
    header.unlink()
    with pytest.raises(ObservationsError, match="not a whole folder"):
        store.load(header.parent)


def test_the_source_is_known_by_its_content(tmp_path):
    obs, *_ = make(tmp_path / "a")
    clip = tmp_path / "a" / "clip.mp4"
    clip.rename(tmp_path / "a" / "renamed.mp4")
    assert store.load(obs.folder).clip.name == "renamed.mp4"
    clip.write_bytes(b"another video under the old name")
    assert store.load(obs.folder).clip.name == "renamed.mp4"
    (tmp_path / "a" / "renamed.mp4").unlink()
    with pytest.raises(ObservationsError, match="altered"):
        store.load(obs.folder)


def test_every_damage_has_its_message(tmp_path):
    with pytest.raises(ObservationsError, match="no such folder"):
        store.load(tmp_path / "absent")
    folder = make(tmp_path / "a")[0].folder
    track, header = (folder / "track.npz").read_bytes(), (folder / "observations.json").read_text()
    (folder / "track.npz").write_bytes(track[: len(track) // 2])
    with pytest.raises(ObservationsError, match="damaged"):
        store.load(folder)
    (folder / "track.npz").write_bytes(track)
    for text in ("[1, 2]", "{", json.dumps({**json.loads(header), "crop": None})):
        (folder / "observations.json").write_text(text)
        with pytest.raises(ObservationsError, match=r"cannot be read|damaged"):
            store.load(folder)
    (folder / "observations.json").write_text(json.dumps({**json.loads(header), "frames": 31}))
    with pytest.raises(ObservationsError, match="expected"):
        store.load(folder)
    (folder / "observations.json").write_text(header)
    (folder / "labels.mkv").unlink()
    with pytest.raises(ObservationsError, match=r"labels\.mkv missing"):
        store.load(folder)


def test_layers_and_track_must_be_equally_long_and_leave_nothing(tmp_path):
    obs, *_ = make(tmp_path / "a")
    writer = store.ObservationsWriter(tmp_path / "b.obs", 64)
    blank = np.zeros((64, 64), np.uint8)
    writer.add(blank, blank, np.zeros((64, 64, 4), np.uint8))
    with pytest.raises(ObservationsError, match="1 frames of layers, 30 rows"):
        writer.finish(clip=obs.clip, clip_hash="", crop=obs.crop, camera=obs.camera, track=obs.track, plate=obs.plates)
    assert not (tmp_path / "b.obs").exists()


def test_a_source_that_ends_early_is_said(tmp_path):
    obs, *_ = make(tmp_path / "a")
    with media.VideoWriter(obs.clip, 64, 64) as video:
        for _ in range(20):
            video.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ObservationsError, match="frame 20 of 30"):
        list(store.frames(obs))


def test_a_torso_layer_that_ends_early_is_said(tmp_path):
    obs, *_ = make(tmp_path / "a")
    with media.LayerWriter(obs.folder / "torso.mkv", 64, 64, "rgb") as layer:
        for _ in range(20):
            layer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ObservationsError, match="frame 20 of 30"):
        list(store.torsos(obs))


def test_opengl_poses_project_as_opencv_ones():
    rng = np.random.default_rng(0)
    w2c = poses(20)
    points = rng.normal(size=(20, 3)) * 0.05
    gl = np.linalg.inv(w2c)
    gl[:, :3, 1:3] *= -1  # as such folders store them
    back = datasets.world_to_camera(gl)
    assert np.abs(back - w2c).max() < 1e-9
    p = np.einsum("tij,kj->tki", back[:, :3, :3], points) + back[:, None, :3, 3]
    q = np.einsum("tij,kj->tki", np.linalg.inv(gl)[:, :3, :3], points) + np.linalg.inv(gl)[:, None, :3, 3]
    q = q * [1, -1, -1]
    assert np.abs(1024 * p[..., :2] / p[..., 2:] - 1024 * q[..., :2] / q[..., 2:]).max() < 1e-6


def test_parsing_colours_become_labels():
    colors = np.array(
        [[(0, 0, 255), (0, 0, 0), (100, 100, 100)], [(0, 255, 0), (255, 0, 0), (250, 255, 253)]], np.uint8
    )
    assert datasets.labels_of(colors).tolist() == [[1, 2, 3], [4, 5, 0]]


def data_folder(folder, frames=12, size=64, without=(0, 5)):
    """A folder as TalkingGaussian's tools leave it; some frames have no pose, as where its detector failed."""
    rng = np.random.default_rng(0)
    for name in ("ori_imgs", "parsing", "torso_imgs", "teeth_mask"):
        (folder / name).mkdir(parents=True)
    parsing = np.full((size, size, 3), 255, np.uint8)
    parsing[10:40, 20:44], parsing[30:34, 28:36], parsing[44:] = (0, 0, 255), (100, 100, 100), (255, 0, 0)
    truth = poses(frames)
    gl = np.linalg.inv(truth)
    gl[:, :3, 1:3] *= -1
    entries = []
    for i in range(frames):
        if i in without:
            continue
        media.write_image(folder / "ori_imgs" / f"{i}.jpg", np.full((size, size, 3), 60 + 10 * i, np.uint8))
        media.write_image(folder / "parsing" / f"{i}.png", parsing)
        torso = np.zeros((size, size, 4), np.uint8)
        torso[44:] = (200, 20, 20, 255)
        media.write_image(folder / "torso_imgs" / f"{i}.png", torso)
        np.savetxt(folder / "ori_imgs" / f"{i}.lms", rng.uniform(10, 50, (68, 2)))
        teeth = np.zeros((size, size), bool)
        teeth[35, 30:34] = True
        np.save(folder / "teeth_mask" / f"{i}.npy", teeth)
        entries.append({"img_id": i, "aud_id": i, "transform_matrix": gl[i].tolist()})
    for name, part in (("train", entries[:8]), ("val", entries[8:])):
        header = {"focal_len": 150.0, "cx": size / 2, "cy": size / 2, "frames": part}
        (folder / f"transforms_{name}.json").write_text(json.dumps(header))
    media.write_image(folder / "bc.jpg", np.full((size, size, 3), 128, np.uint8))
    media.write_sound(folder / "aud.wav", Sound(np.zeros(frames * 640, np.float32), 16_000))
    table(folder / "au.csv", [(1, 1.5)] * frames)
    return truth


def test_data_folder_loads_as_observations(tmp_path, monkeypatch):
    def absent(*_, **__):
        raise AssetError("no model file")

    monkeypatch.setattr(datasets, "Landmarker", absent)
    truth = data_folder(tmp_path / "person")
    obs = datasets.load(tmp_path / "person")
    assert obs.track.valid.tolist() == [k not in (0, 5) for k in range(12)] and obs.info["dropped_frames"] == [
        [0, 1], [5, 6]
    ]  # fmt: skip
    assert np.allclose(obs.track.head_pose[obs.track.valid], truth[obs.track.valid], atol=1e-5)
    r = obs.track.head_pose[:, :3, :3]
    assert np.allclose(r @ r.transpose(0, 2, 1), np.eye(3), atol=1e-5), "filled poses are poses"
    assert obs.camera.fx == 150 and (obs.track.action_units == 1.5).all()
    seen = list(store.frames(obs))
    assert len(seen) == 12 and [round(float(f.image.mean())) for f in seen[6:8]] == pytest.approx([120, 130], abs=2)
    assert seen[3].labels[32, 30] == 3 == seen[3].labels[35, 31] and seen[3].labels[15, 30] == 1
    assert (seen[3].head_alpha[15, 30], seen[3].head_alpha[60, 5]) == (255, 0)
    assert seen[3].behind[0, 0].tolist() == pytest.approx([128] * 3, abs=3)
    assert np.array_equal(datasets.load(tmp_path / "person").track.landmarks, obs.track.landmarks), "written once"


def test_data_folder_that_lacks_a_file_says_which(tmp_path):
    data_folder(tmp_path / "person")
    (tmp_path / "person" / "bc.jpg").unlink()
    with pytest.raises(ObservationsError, match=r"bc\.jpg is missing"):
        datasets.load(tmp_path / "person")


def test_68_points_are_spread_along_the_contours():
    turn = 2 * np.pi * np.arange(len(LIPS_INNER)) / len(LIPS_INNER)
    ellipse = np.stack([100 - 20 * np.cos(turn), 200 - 8 * np.sin(turn)], axis=1)
    points = np.zeros((68, 2), np.float32)
    for k, index in enumerate(LANDMARKS_68):
        if index in LIPS_INNER:
            points[k] = ellipse[LIPS_INNER.index(index)]
    out = datasets.spread(points)
    assert np.abs(out[LIPS_INNER, :2] - ellipse).max() < 3.5, "within the chords of the known points"


def test_grade_judges_each_side_of_its_limits():
    assert grade.judge("x", 10, 5, 2, "", "a").status == "pass"
    assert grade.judge("x", 3, 5, 2, "", "a").status == "weak"
    assert grade.judge("x", 1, 5, 2, "", "a").status == "fail"
    assert grade.judge("x", 7, 5, 9, "", "a", more_is_better=False).status == "weak"


def test_grade_finds_the_lag_of_the_lips(tmp_path):
    from vocalface.observe.speech.articulatory import MOTIONS, ArticulatoryFeature
    from vocalface.presenter import voice

    sound = voice.speak(voice.script(6.0, 1), seed=1).sound
    motion = ArticulatoryFeature().motions(sound)
    gap, jaw = (motion[:, MOTIONS.index(name)] for name in ("gap", "jaw"))
    obs, *_ = make(tmp_path / "a")
    for late in (0, 5, -4):
        points = np.tile(obs.track.landmarks[:1], (len(motion), 1, 1))
        points[:, [14, 87, 317], 1] += 10 * np.roll(gap, late)[:, None]
        points[:, 17, 1] += 10 * np.roll(jaw, late)
        blank = [np.zeros((len(points), *shape), np.float32) for shape in ((), (52,), (17,), (4, 4))]
        track = FaceTrack(blank[0] == 0, points, *blank[1:])
        frames, strength = grade.lag(replace(obs, track=track), sound)
        assert frames == late and strength > 0.8


def test_a_graded_clip_has_a_finding_for_each_side_and_a_report(tmp_path):
    obs, *_ = make(tmp_path / "a", frames=60)
    obs = replace(obs, info={**obs.info, "all_shots": [[0, 60], [60, 80]]})
    found = {f.name: f for f in grade.grade(obs)}
    assert found["length"].status == "fail" and "2 shots" in found["cuts"].value
    assert found["sound against lips"].status == "weak", "a tone is no speech"
    assert all(f.advice for f in found.values() if f.status != "pass")
    page = grade.write_report(obs, list(found.values()), tmp_path / "report.html").read_text()
    assert "data:image/jpeg;base64," in page and all(name.split(" (")[0] in page for name in found)


def test_grade_reads_the_heads_angles():
    w2c = np.tile(np.eye(4), (3, 1, 1))
    yaw = np.array([-0.3, 0.0, 0.3])
    w2c[:, :3, :3] = np.diag([1.0, -1, -1]) @ pose.rotations(np.stack([0 * yaw, yaw, 0 * yaw], axis=1))
    found = grade.angles(w2c)
    assert np.allclose(found[:, 0], yaw, atol=1e-9) and np.allclose(found[:, 1:], 0, atol=1e-9)


def test_index_tables_are_what_they_say():
    assert len(RIGID) == len(set(RIGID)) >= 60 and len(LANDMARKS_68) == 68 == len(set(LANDMARKS_68.tolist()))
    assert set(LANDMARKS_68[60:]) <= set(LIPS_INNER)
