"""Turning schedules, another video's head and blinks, idle portraits, choice of face, the whole picture."""

from dataclasses import replace

import numpy as np
import pytest
from test_animate import SIZE, portrait, speech

from vocalface import media
from vocalface.errors import ConfigError, FaceError
from vocalface.observe.indices import EYE_LEFT, EYE_RIGHT
from vocalface.observe.landmarks import Face
from vocalface.sadtalker.direction import (
    Direction,
    angles_of,
    blink_track,
    head_track,
    landmarks_of,
    to_and_fro,
)
from vocalface.sadtalker.drive import animate
from vocalface.sadtalker.motion import Pose, Style
from vocalface.sadtalker.portrait import cut
from vocalface.sadtalker.rig import rotation


def found(image):
    return [Face((portrait().landmarks * (len(image) / SIZE)).astype(np.float32), np.zeros(52, np.float32))]


def test_schedules_reach_their_keys_smoothly_and_leave_the_rest_to_speech():
    given = [Pose(angles=(0.01, 0.02, 0.03), blink=0.5)] * 21
    made = list(Direction(yaw=(-20, 20), roll=(5,))(given, 21))
    yaw = np.degrees([p.angles[0] for p in made])
    assert yaw[0] == pytest.approx(-20) and yaw[10] == pytest.approx(0, abs=1e-6) and yaw[-1] == pytest.approx(20)
    assert (np.diff(yaw) > 0).all() and np.diff(yaw).max() < 4
    assert all(p.angles[1] == 0.02 and p.blink == 0.5 for p in made)
    assert np.degrees(made[7].angles[2]) == pytest.approx(5)


def test_angles_that_a_relief_cannot_show_are_refused():
    with pytest.raises(ConfigError, match="--yaw"):
        Direction(yaw=(0, 80))
    with pytest.raises(ConfigError):
        Direction(pitch=(float("nan"),))
    assert angles_of("-15,0,15", "--yaw") == (-15, 0, 15) and angles_of("", "--yaw") == ()
    with pytest.raises(ConfigError, match="--roll"):
        angles_of("left", "--roll")


def test_a_known_head_motion_is_read_from_landmarks():
    t = np.arange(60)
    yaw, pitch, roll = 0.2 * np.sin(t / 9), 0.1 * np.sin(t / 7 + 1), 0.08 * np.cos(t / 11)
    rest = portrait().landmarks.astype(float)
    centre = rest[152] + 0.15 * (rest[152] - rest[10])
    centre[2] = rest[[234, 454], 2].mean()
    turned = [
        (rest - centre) @ rotation(*a).T + centre + (12 * np.sin(k / 20), 0, 0)
        for k, a in enumerate(zip(yaw, pitch, roll))
    ]
    track = head_track(np.stack(turned))
    for k, truth in enumerate((yaw, pitch, roll)):
        assert np.corrcoef(track[:, k], truth)[0, 1] > 0.98
        assert track[:, k].std() == pytest.approx(truth.std(), rel=0.1)
    assert np.corrcoef(track[:, 3], np.sin(t / 20))[0, 1] > 0.8


def test_blinks_are_read_from_the_eyes_alone():
    rest = portrait().landmarks.astype(float)
    frames = np.stack([rest] * 40)
    for rim in (EYE_LEFT, EYE_RIGHT):
        middle = rest[rim, 1].mean()
        frames[18:22, rim, 1] = middle + 0.25 * (rest[rim, 1] - middle)
    frames[30:, [13, 14], 1] += 20  # a mouth that moves is no blink
    closed = blink_track(frames)
    assert closed[18:22].min() > 0.9 and closed[:17].max() < 0.1 and closed[30:].max() < 0.1


def test_a_reference_is_played_to_and_fro():
    assert [to_and_fro(i, 3) for i in range(7)] == [0, 1, 2, 1, 0, 1, 2] and to_and_fro(5, 1) == 0
    head = np.zeros((4, 5))
    head[:, 0] = [0, 0.1, 0.2, 0.3]
    made = list(Direction(head=head, blink=np.array([0.0, 1.0]))([Pose()] * 8, 8))
    assert [p.angles[0] for p in made] == pytest.approx([0, 0.1, 0.2, 0.3, 0.2, 0.1, 0, 0.1])
    assert [p.blink for p in made] == [0, 1] * 4


def test_a_reference_that_turns_too_far_is_held_within_what_a_relief_shows():
    head = np.zeros((2, 5))
    head[:, :3] = 1.2
    (pose,) = Direction(head=head)([Pose()], 1)
    assert np.degrees(pose.angles) == pytest.approx((35, 25, 30), rel=0.05) and max(np.degrees(pose.angles)) <= 35


def test_a_reference_video_of_any_rate_is_read_at_25_and_one_without_a_face_is_refused(tmp_path):
    with media.VideoWriter(tmp_path / "r.mp4", SIZE, SIZE, fps=50) as video:
        for _ in range(20):
            video.write(portrait().image)
    assert landmarks_of(tmp_path / "r.mp4", found).shape == (10, 478, 3)
    with pytest.raises(FaceError, match="0 of 10"):
        landmarks_of(tmp_path / "r.mp4", lambda image: [])


def test_idle_makes_a_silent_video_of_the_length_that_was_asked_for(tmp_path):
    made = animate(portrait(), None, tmp_path / "i.mp4", idle=1.2)
    clip = media.open_clip(tmp_path / "i.mp4")
    assert made.frames == len(clip.at(25)) == 30 and not clip.has_sound
    with pytest.raises(ConfigError, match="--idle"):
        animate(portrait(), None, tmp_path / "j.mp4")
    with pytest.raises(ConfigError, match="--idle"):
        animate(portrait(), speech(), tmp_path / "j.mp4", idle=1.0)
    assert not (tmp_path / "j.mp4").exists()


def test_the_face_is_chosen_by_number_or_place():
    image = np.zeros((300, 600, 3), np.uint8)
    left = portrait().landmarks * 0.5 + (20, 60, 0)
    right = portrait().landmarks * 0.6 + (380, 60, 0)
    faces = [Face(p.astype(np.float32), np.zeros(52, np.float32)) for p in (right, left)]  # the largest first

    def where(which: str) -> float:
        box = cut(image, lambda picture: faces if picture.shape == image.shape else [], 128, "p.png", which).box
        return box.x + box.side / 2

    assert where("largest") > 300 and where("0") < 300 < where("1") and where("30,70,100,120") < 300
    for wrong in ("2", "left", "1,2"):
        with pytest.raises(FaceError, match="--face"):
            where(wrong)


def test_the_whole_picture_keeps_its_size_and_what_lies_outside_the_square(tmp_path):
    wide = np.full((SIZE + 40, SIZE + 200, 3), 90, np.uint8)
    wide[20 : 20 + SIZE, 60 : 60 + SIZE] = portrait().image
    given = replace(portrait(), source=wide, box=replace(portrait().box, x=60, y=20))
    animate(given, speech(), tmp_path / "w.mp4", whole=True, style=Style(seed=3), direction=Direction(yaw=(15,)))
    frame = next(iter(media.open_clip(tmp_path / "w.mp4").at(25))).astype(int)
    assert frame.shape == wide.shape
    assert np.abs(frame[:, :50] - 90).max() < 8 and np.abs(frame[:, -120:] - 90).max() < 8
    assert np.abs(frame[20 : 20 + SIZE, 60 : 60 + SIZE] - portrait().image).max() > 15
    with pytest.raises(ConfigError, match="keep"):
        animate(portrait(), speech(), tmp_path / "x.mp4", whole=True)
