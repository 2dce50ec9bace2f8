"""Everything a user can get wrong: three short lines (what, where, how to mend), exit code 2, nothing left behind."""

import json
import os
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "hmtalker"))
import stand_ins

from vocalface import assets, media
from vocalface.cli import main
from vocalface.errors import AssetError
from vocalface.hmtalker.head import SCHEMA, Head
from vocalface.observe import landmarks, store, watch
from vocalface.types import AU_NAMES, CropBox, Sound

SHORT = 160  # characters of a line


@pytest.fixture
def refused(capfd, tmp_path, monkeypatch):
    """Runs a command that must be refused and leave nothing; returns its three lines."""
    monkeypatch.chdir(tmp_path)

    def run(*argv) -> str:
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
        folders = {p for p in tmp_path.rglob("*") if p.is_dir()}
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*map(str, argv), "--quiet"])
        said = capfd.readouterr().err
        lines = said.splitlines()
        assert stop.value.code == 2 and len(lines) == 3, said
        assert (
            lines[0].startswith("vocalface: ") and lines[1].startswith("  where: ") and lines[2].startswith("  mend:")
        )
        assert all(len(line.replace(str(tmp_path), "")) <= SHORT and len(line) > 12 for line in lines), said
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before, "a file is left behind"
        assert {p for p in tmp_path.rglob("*") if p.is_dir()} == folders, "a folder is left behind"
        return said

    return run


def film(path: Path, pictures, sound=None) -> Path:
    pictures = list(pictures)
    with media.VideoWriter(path, pictures[0].shape[1], pictures[0].shape[0], crf=4, sound=sound) as video:
        for picture in pictures:
            video.write(picture)
    return path


# ------------------------------------------------------------------------------------------------------ files and sound
def test_what_is_no_whole_media_file(refused, head, speech, tmp_path):
    text, empty, stub, half = (tmp_path / f"{name}.mp4" for name in ("text", "empty", "stub", "half"))
    text.write_text("only words " * 50)
    empty.touch()
    whole = film(tmp_path / "whole.mp4", [np.full((64, 64, 3), k, np.uint8) for k in range(60)]).read_bytes()
    stub.write_bytes(whole[:600])
    half.write_bytes(whole[: len(whole) // 2])
    for path, what in ((text, "not a media file"), (empty, "empty"), (stub, "cut off")):
        assert what in refused("observe", path)
        assert what in refused("train", path, "-o", tmp_path / "a.vface")
        assert what in refused("speak", head, path, "-o", tmp_path / "a.mp4")
        assert what in refused("evaluate", path)
        assert what in refused("evaluate", tmp_path / "whole.mp4", "--reference", path)
        assert what in refused("speak", head, speech, "-o", tmp_path / "a.mp4", "--paste-back", path)
    assert "cut off or damaged" in refused("observe", half)
    assert "no such file" in refused("observe", tmp_path / "absent.mp4")
    assert "no picture" in refused("observe", speech, "-o", tmp_path / "a.obs")


def test_no_sound_is_said_before_the_clip_is_observed(refused, head, tmp_path):
    mute = film(tmp_path / "mute.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 60)
    assert "no sound track" in refused("train", mute, "-o", tmp_path / "a.vface")
    assert "no sound track" in refused("speak", head, mute, "-o", tmp_path / "a.mp4")


def test_a_sound_file_with_no_sample_is_refused(refused, head, tmp_path):
    path = media.write_sound(tmp_path / "none.wav", Sound(np.zeros(0, np.float32), 16_000))
    assert "empty" in refused("speak", head, path, "-o", tmp_path / "a.mp4")


@pytest.mark.parametrize("samples", [1, 1600, 3199])
def test_sound_under_a_fifth_of_a_second_is_padded(head, tmp_path, samples):
    path = media.write_sound(tmp_path / "s.wav", Sound(np.full(samples, 0.1, np.float32), 16_000))
    main(["speak", str(head), str(path), "-o", str(tmp_path / "a.mp4"), "--quiet"])
    clip = media.open_clip(tmp_path / "a.mp4")
    assert len(clip.at(25)) == 5 and clip.has_sound


# ---------------------------------------------------------------------------------------------------------------- heads
def head_file(source: Path, target: Path, **changes) -> Path:
    """`source` with fields of its header changed (None: removed), tensors untouched."""
    data = source.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    outer = json.loads(data[8 : 8 + size])
    inner = json.loads(outer["__metadata__"]["vocalface"]) | changes
    outer["__metadata__"]["vocalface"] = json.dumps({k: v for k, v in inner.items() if v is not None})
    text = json.dumps(outer).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return target


def test_heads_that_cannot_be_used(refused, head, speech, tmp_path):
    data = head.read_bytes()
    flipped = bytearray(data)
    flipped[-50] ^= 1
    for name, content, what in (
        ("empty", b"", "truncated"), ("stub", data[:5], "truncated"), ("half", data[: len(data) // 2], "truncated"),
        ("flipped", bytes(flipped), "altered"), ("sound", speech.read_bytes(), "damaged"),
    ):  # fmt: skip
        path = tmp_path / f"{name}.vface"
        path.write_bytes(content)
        assert what in refused("speak", path, speech, "-o", tmp_path / "a.mp4"), name
    for changes, what in (
        ({"schema": SCHEMA + 1}, "schema"), ({"crop": [1, 2, 3]}, "altered"), ({"sha256": None}, "altered"),
        ({"camera": None, "header_sha256": None}, "altered"), ({"config": None, "header_sha256": None}, "altered"),
        ({"schema": None}, "not a head"),
    ):  # fmt: skip
        path = head_file(head, tmp_path / "changed.vface", **changes)
        assert what in refused("speak", path, speech, "-o", tmp_path / "a.mp4"), changes
    assert "schema" in refused("bench", head_file(head, tmp_path / "changed.vface", schema=SCHEMA + 1))
    assert "no such head" in refused("speak", tmp_path, speech, "-o", tmp_path / "a.mp4")


def test_a_head_without_a_seal_on_its_header_still_speaks(head, tmp_path):
    """Heads of earlier versions have none."""
    assert Head.load(head_file(head, tmp_path / "old.vface", header_sha256=None)).digest == Head.load(head).digest


def test_a_head_trained_with_another_speech_feature(refused, head, speech, tmp_path, monkeypatch):
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    whole = Head.load(head)
    path = tmp_path / "other.vface"
    for name, what in (("articulatory", "features"), ("ave", "AVE"), ("morse", "Unknown speech feature")):
        replace(whole, feature_name=name).save(path)
        assert what in refused("speak", path, speech, "-o", tmp_path / "a.mp4")


# -------------------------------------------------------------------------------------------------------------- outputs
def test_alpha_needs_a_container_that_holds_it(refused, head, speech, tmp_path):
    said = refused("speak", head, speech, "--background", "alpha", "-o", tmp_path / "a.mp4")
    assert ".mov" in said and ".webm" in said


def test_outputs_that_cannot_be_written(refused, head, speech, tmp_path):
    """Under a regular file nothing can be made, whoever asks; nor in a folder that takes no files."""
    file = tmp_path / "file"
    file.touch()
    clip = film(tmp_path / "c.mp4", [np.full((64, 64, 3), k, np.uint8) for k in range(60)])
    places = [file, Path("/proc")] if Path("/proc/self").exists() else [file]
    for place in places:
        refused("speak", head, speech, "-o", place / "a.mp4")
        refused("train", head.parent / "drawn.obs", "-o", place / "a.vface")
        refused("observe", clip, "-o", place / "a.obs")
        refused("present", "-o", place / "p", "--seconds", "2", "--size", "64")
        refused("evaluate", clip, "-o", place / "report.html")
    assert "exist" in refused("observe", clip, "-o", file)
    assert "a folder has this name" in refused("speak", head, speech, "-o", tmp_path)
    assert "a folder has this name" in refused("train", head.parent / "drawn.obs", "-o", tmp_path)
    assert "written as .txt" in refused("speak", head, speech, "-o", tmp_path / "a.txt")


def test_cuda_where_there_is_none(refused, head, speech, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    for command in (
        ("observe", speech), ("train", speech), ("speak", head, speech), ("evaluate", speech), ("bench", head),
        ("present",), ("demo",),
    ):  # fmt: skip
        assert "no CUDA device" in refused(*command, "--device", "cuda")


def test_options_that_make_no_sense(refused, head, speech, tmp_path):
    for option, value in (
        ("--smooth", "nan"), ("--smooth", "2"), ("--mouth-gain", "inf"), ("--mouth-gain", "-1"), ("--start", "-1"),
        ("--start", "55"), ("--pose", "absent.npy"), ("--background", "plaid"), ("--au", "AU99=1"),
    ):  # fmt: skip
        assert (
            option in refused("speak", head, speech, "-o", tmp_path / "a.mp4", option, value) or value == "absent.npy"
        )
    other = film(tmp_path / "other.mp4", [np.zeros((64, 64, 3), np.uint8)] * 30)
    assert "30 frames" in refused("speak", head, speech, "-o", tmp_path / "a.mp4", "--paste-back", other)
    assert "--size" in refused("observe", other, "--size", "0")


# ------------------------------------------------------------------------------------ faces, with stand-ins for models
ONE, NONE, TWO = 98, 103, 108  # blue of a picture with that many faces


def picture(blue: int, size: int = 160) -> np.ndarray:
    """Gray with a code in its blue; the codes are so near that no cut is seen between them."""
    return np.full((size, size, 3), (120, 130, blue), np.uint8)


@pytest.fixture
def models(monkeypatch):
    """Stand-ins that see as many faces as the blue says, each `models.height` px high."""

    class See:
        height = 70.0

        def __call__(self, image):
            h, w = image.shape[:2]
            blue = image[h // 2, w // 2, 2]
            if abs(int(blue) - NONE) < 2:
                return []
            xs = (w / 4, 3 * w / 4) if blue > NONE else (w / 2,)
            return [stand_ins.face(x, h / 2, self.height) for x in xs]

    see = See()
    monkeypatch.setattr(landmarks, "Landmarker", stand_ins.landmarker(see))
    monkeypatch.setattr(watch, "LayerBuilder", stand_ins.Layers)
    return see


def test_faces_that_cannot_be_observed(refused, models, tmp_path):
    assert "no face" in refused("observe", film(tmp_path / "none.mp4", [picture(NONE)] * 60))
    assert "--face 0" in refused("observe", film(tmp_path / "two.mp4", [picture(TWO)] * 60))
    one = film(tmp_path / "one.mp4", [picture(ONE)] * 60)
    assert "no face '3'" in refused("observe", one, "--face", "3")
    models.height = 50.0
    assert "50 px high" in refused("observe", one)
    assert "lasts 1.6 s" in refused("observe", film(tmp_path / "short.mp4", [picture(ONE)] * 40))


def test_a_face_in_too_few_frames_lists_those_without(refused, models, tmp_path):
    codes = [ONE] * 20 + [NONE] * 12 + [ONE] * 40 + [NONE] * 15 + [ONE] * 13
    said = refused("observe", film(tmp_path / "seldom.mp4", map(picture, codes)))
    assert "73 % of the frames" in said and "20-31, 72-86" in said


def test_dropped_frames_are_listed_and_indices_stay_right(models, tmp_path):
    codes = [ONE] * 20 + [NONE] * 3 + [ONE] * 30 + [NONE] * 2 + [ONE] * 15
    clip = film(tmp_path / "c.mp4", map(picture, codes))
    main(["observe", str(clip), "--size", "64", "--quiet"])
    obs = store.load(tmp_path / "c.obs")
    assert len(obs) == len(codes) and np.array_equal(obs.track.valid, np.array(codes) == ONE)
    assert obs.info["dropped_frames"] == [[20, 23], [53, 55]]


def test_a_cut_keeps_the_longest_shot_in_its_place(models, tmp_path, capsys):
    other = [np.full((160, 160, 3), (20, 220, ONE), np.uint8)] * 55
    clip = film(tmp_path / "c.mp4", other + [picture(ONE)] * 70)
    main(["observe", str(clip), "--size", "64", "--quiet"])
    obs = store.load(tmp_path / "c.obs")
    assert obs.info["all_shots"] == [[0, 55], [55, 125]] and obs.info["start_frame"] == 55 and len(obs) == 70
    assert "2 shots" in capsys.readouterr().out
    first = next(store.frames(obs, 0, 1)).image
    assert abs(first[32, 32].astype(int) - picture(ONE)[0, 0]).max() < 6, "the first frame is the shot's own"


def table(path: Path, rows: int, value="0.5") -> Path:
    names = ["frame", "success", "confidence", *(f"{a}_r" for a in AU_NAMES)]
    lines = [", ".join([str(k + 1), "1", "0.98", *[value] * len(AU_NAMES)]) for k in range(rows)]
    path.write_text("\n".join([", ".join(names), *lines]))
    return path


def test_tables_of_action_units_are_checked_before_the_clip(refused, models, tmp_path, monkeypatch):
    clip = film(tmp_path / "c.mp4", [picture(ONE)] * 60)
    monkeypatch.setattr(landmarks, "Landmarker", None)  # nobody looks
    good, words, short = tmp_path / "good.csv", tmp_path / "words.csv", tmp_path / "short.csv"
    assert "40 rows of action units for 60 frames" in refused("observe", clip, "--au-table", table(short, 40))
    assert "no numbers" in refused("observe", clip, "--au-table", table(words, 60, "high"))
    words.write_text("nothing of the kind")
    assert "columns are missing" in refused("observe", clip, "--au-table", words)
    assert "cannot read" in refused("observe", clip, "--au-table", clip)
    assert "no such table" in refused("observe", clip, "--au-table", tmp_path / "absent.csv")
    monkeypatch.undo()
    monkeypatch.setattr(landmarks, "Landmarker", stand_ins.landmarker(models))
    monkeypatch.setattr(watch, "LayerBuilder", stand_ins.Layers)
    main(["observe", str(clip), "--au-table", str(table(good, 60)), "-o", str(tmp_path / "c.obs"), "--quiet"])
    assert np.allclose(store.load(tmp_path / "c.obs").track.action_units, 0.5)


# --------------------------------------------------------------------------------------------------------- real footage
@pytest.fixture(scope="module")
def clips():
    folder = Path(os.environ.get("VOCALFACE_TEST_DATA", "")) / "clips"
    if not (folder / "flags.mp4").is_file():
        pytest.skip("needs clips: set VOCALFACE_TEST_DATA to a folder that has clips/")
    for model in ("mediapipe/face_landmarker.task", "mediapipe/selfie_segmentation_256.tflite"):
        try:
            assets.path(model)
        except AssetError as error:
            pytest.skip(str(error).splitlines()[0])
    return folder


def shown(path: Path, frames: int):
    return media.open_clip(path).at(25).iterate(0, frames)


def without_face(image: np.ndarray) -> np.ndarray:
    """The face covered by a plate of the backdrop's kind: the shot goes on."""
    out = image.copy()
    out[60:420, 120:400] = image[20:60, 20:60].mean((0, 1))
    return out


@pytest.mark.slow
def test_real_faces_that_cannot_be_observed(refused, clips, tmp_path):
    flags, statement = clips / "flags.mp4", clips / "statement.mp4"
    small = []
    for image in shown(statement, 60):
        canvas = np.full((360, 480, 3), 120, np.uint8)
        canvas[100:190, 200:290] = media.crop(image, CropBox(0, 0, 512), 90)
        small.append(canvas)
    film(tmp_path / "none.mp4", [np.full((256, 256, 3), 90, np.uint8)] * 60)
    film(tmp_path / "two.mp4", (np.hstack(pair) for pair in zip(shown(flags, 60), shown(statement, 60))))
    film(tmp_path / "small.mp4", small)
    film(tmp_path / "cuts.mp4", [*shown(flags, 40), *shown(statement, 40), *shown(clips / "turning.mp4", 40)])
    film(tmp_path / "seldom.mp4", (without_face(f) if k % 20 > 13 else f for k, f in enumerate(shown(flags, 100))))
    assert "no face" in refused("observe", tmp_path / "none.mp4")
    assert "2 faces" in refused("observe", tmp_path / "two.mp4")
    assert "px high, too small" in refused("observe", tmp_path / "small.mp4")
    assert "3 shots" in refused("observe", tmp_path / "cuts.mp4")
    said = refused("observe", tmp_path / "seldom.mp4")
    assert "70 % of the frames" in said and "14-19, 34-39, 54-59" in said
    assert "no sound track" in refused("train", clips / "silent.mp4", "-o", tmp_path / "a.vface")


@pytest.mark.slow
def test_real_clips_that_are_hard_are_observed_and_graded(clips, tmp_path, capsys):
    cut = film(tmp_path / "cut.mp4", [*shown(clips / "flags.mp4", 60), *shown(clips / "statement.mp4", 90)])
    hard = {"garden.mp4": clips / "garden.mp4", "small.mp4": clips / "small_face_silent.mp4", "cut.mp4": cut}
    said = {}
    for name, path in hard.items():
        main(["observe", str(path), "-o", str(tmp_path / f"{name}.obs"), "--size", "128", "--quiet"])
        said[name] = capsys.readouterr().out
    garden = store.load(tmp_path / "garden.mp4.obs")
    assert len(garden) == len(media.open_clip(clips / "garden.mp4").at(25))
    missing = [i for a, b in garden.info["dropped_frames"] for i in range(a, b)]
    assert np.array_equal(np.flatnonzero(~garden.track.valid), missing) and np.isfinite(garden.track.landmarks).all()
    assert "fail  sound: no sound track" in said["small.mp4"] and "face size" in said["small.mp4"]
    obs = store.load(tmp_path / "cut.mp4.obs")
    assert obs.info["start_frame"] == 60 and len(obs) == 90 and "2 shots" in said["cut.mp4"]
