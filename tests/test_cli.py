"""The command line as a user meets it: help at once, errors in three lines with exit code 2, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "hmtalker"))
import drawn

from vocalface import media
from vocalface.cli import VERBS, Train, check_observed, main, overrides
from vocalface.errors import ConfigError
from vocalface.hmtalker.head import Head
from vocalface.observe import store
from vocalface.types import Sound


def fails(capsys, *argv) -> str:
    """Runs a command that must fail with exit code 2 and three lines; returns them."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    assert stop.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "left" not in line]
    assert len(said) == 3 and said[1].startswith("  where:") and said[2].startswith("  mend:"), said
    return "\n".join(said)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_without_heavy_imports(verb):
    code = (
        f"import sys; sys.argv = ['vocalface', '{verb}', '--help']\nfrom vocalface.cli import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\n"
        "assert not {'torch', 'mediapipe', 'av', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and verb in done.stdout, done.stderr


def test_speak_writes_a_video_as_long_as_the_speech(head, speech, tmp_path, capsys):
    main(["speak", str(head), str(speech), "-o", str(tmp_path / "o.mp4"), "--json", "--quiet"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    clip = media.open_clip(tmp_path / "o.mp4")
    assert said["frames"] == len(clip.at(25)) == int(np.ceil(1.3 * 25)) and clip.has_sound
    import av

    with av.open(str(tmp_path / "o.mp4")) as container:
        tags = container.metadata
    assert tags["vocalface_synthetic"] == "true" and tags["vocalface_head"] == Head.load(head).digest
    assert tags["vocalface_consent"] == "drawn by a test"


def test_speaking_needs_neither_torch_nor_mediapipe(head, speech, tmp_path):
    code = (
        "import sys; from vocalface.cli import main\n"
        f"main(['speak', {str(head)!r}, {str(speech)!r}, '-o', {str(tmp_path / 'x.mp4')!r}, '--quiet'])\n"
        "assert not {'torch', 'mediapipe', 'cv2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_speak_options(head, speech, tmp_path, capsys):
    for k, extra in enumerate(
        (["--background", "alpha"], ["--background", "#102030", "--upper", "blink"],
         ["--pose", "still", "--upper", "still"],
         ["--au", "AU12=+1.5", "AU26=0.8x"], ["--silence", "free", "--mouth-gain", "1.3"])
    ):  # fmt: skip
        path = tmp_path / f"o{k}{'.mov' if 'alpha' in extra else '.mp4'}"
        main(["speak", str(head), str(speech), "-o", str(path), "--quiet", *extra])
        assert len(media.open_clip(path).at(25)) == 33


def test_paste_back_fills_the_source_frame(head, speech, tmp_path):
    source = head.parent / "drawn.mp4"
    main(["speak", str(head), str(speech), "-o", str(tmp_path / "p.mp4"), "--quiet", "--paste-back", str(source)])
    made, true = media.open_clip(tmp_path / "p.mp4"), media.open_clip(source)
    assert (made.width, made.height) == (true.width, true.height)


def test_short_and_silent_speech_is_padded_not_refused(head, tmp_path):
    for name, samples in (("short", np.full(800, 0.2)), ("silent", np.zeros(16_000))):
        path = media.write_sound(tmp_path / f"{name}.wav", Sound(samples.astype(np.float32), 16_000))
        main(["speak", str(head), str(path), "-o", str(tmp_path / f"{name}.mp4"), "--quiet"])
        assert len(media.open_clip(tmp_path / f"{name}.mp4").at(25)) == (5 if name == "short" else 25)


def test_bad_input_to_speak(head, speech, tmp_path, capsys):
    text = tmp_path / "text.wav"
    text.write_text("no sound at all, only words " * 20)
    before = set(tmp_path.iterdir())
    assert "no such head" in fails(
        capsys, "speak", tmp_path / "none.vface", speech, "--quiet", "-o", tmp_path / "o.mp4"
    )
    assert "not a media file" in fails(capsys, "speak", head, text, "--quiet", "-o", tmp_path / "o.mp4")
    assert "no such file" in fails(capsys, "speak", head, tmp_path / "none.wav", "--quiet", "-o", tmp_path / "o.mp4")
    assert "alpha" in fails(capsys, "speak", head, speech, "--background", "alpha", "-o", tmp_path / "o.mp4", "--quiet")
    assert "background" in fails(
        capsys, "speak", head, speech, "--background", "plaid", "-o", tmp_path / "o.mp4", "--quiet"
    )
    assert "AU77" in fails(capsys, "speak", head, speech, "--au", "AU77=1", "-o", tmp_path / "o.mp4", "--quiet")
    assert "folder" in fails(capsys, "speak", head, speech, "-o", tmp_path / "no" / "o.mp4", "--quiet")
    assert set(tmp_path.iterdir()) == before, "nothing is left behind"


def test_a_head_trained_with_another_feature_is_refused(head, speech, tmp_path, capsys):
    whole = Head.load(head)
    from dataclasses import replace

    other = replace(whole, feature_name="articulatory")
    other.save(tmp_path / "other.vface")
    assert "features" in fails(capsys, "speak", tmp_path / "other.vface", speech, "-o", tmp_path / "o.mp4", "--quiet")


def test_bad_input_to_train_and_observe(tmp_path, capsys):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    out = ["-o", tmp_path / "a.vface", "--quiet"]
    assert "empty" in fails(capsys, "train", empty, *out)
    assert "no such file" in fails(capsys, "train", tmp_path / "none.mp4", *out)
    assert "no preset" in fails(capsys, "train", empty, "--preset", "turbo", *out)
    assert "no option" in fails(capsys, "train", empty, "--set", "colour=red", *out)
    assert "folder" in fails(capsys, "train", empty, "-o", tmp_path / "no" / "a.vface")
    assert "not a whole folder" in fails(capsys, "train", tmp_path, *out)
    assert "empty" in fails(capsys, "observe", empty, "--quiet")
    import torch

    if not torch.cuda.is_available():
        assert "CUDA" in fails(capsys, "train", empty, "--device", "cuda", *out)


def test_what_only_an_observation_can_heed_is_not_ignored(tmp_path, capsys):
    obs = drawn.observations(tmp_path, 50)
    table = tmp_path / "au.csv"
    table.write_text("frame, AU01_r\n")
    out = tmp_path / "a.vface"
    for option, value in (("--au-table", table), ("--face", "1")):
        said = fails(capsys, "train", obs.folder, "-o", out, option, value)
        assert "observed already" in said and option in said
        said = fails(capsys, "ablate", obs.folder, "-o", tmp_path / "runs", option, value)
        assert "observed already" in said
    header = json.loads((obs.folder / "observations.json").read_text())
    header["info"]["key"] = {"au_table": store.file_hash(table), "face": "largest"}  # this very table
    (obs.folder / "observations.json").write_text(json.dumps(header))
    check_observed(obs.folder, Train(clip=obs.folder, au_table=table))


def test_where_a_head_goes_is_checked_before_the_clip_is_observed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vocalface.observe.observe", None)
    clip = drawn.observations(tmp_path, 50).clip
    assert ".vface" in fails(capsys, "train", clip, "-o", tmp_path / "head.mp4")
    assert "folder" in fails(capsys, "train", clip, "-o", tmp_path / "nowhere" / "head.vface")
    assert not (tmp_path / "drawn.obs" / "landmarks.npz").exists()


def test_a_clip_without_sound_or_too_short_is_refused_for_training(tmp_path, capsys):
    obs = drawn.observations(tmp_path / "short", frames=20)
    said = fails(capsys, "train", obs.folder, "-o", tmp_path / "a.vface", "--preset", "tiny", "--quiet")
    assert "too short" in said
    long = drawn.observations(tmp_path / "mute", frames=60, mute=True)
    said = fails(capsys, "train", long.folder, "-o", tmp_path / "a.vface", "--preset", "tiny", "--quiet")
    assert "no sound track" in said


def test_errors_are_json_too(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["speak", str(tmp_path / "no.vface"), "x.wav", "--json", "-o", str(tmp_path / "o.mp4")])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"] == "no such head"


def test_overrides_take_the_configurations_types():
    assert overrides(("fusion=concat", "face_steps=20", "fuse_motion=true", "lr_net=1e-3")) == {
        "fusion": "concat", "face_steps": 20, "fuse_motion": True, "lr_net": 1e-3,
    }  # fmt: skip
    with pytest.raises(ConfigError):
        overrides(("face_steps=many",))


@pytest.mark.skipif(not os.environ.get("VOCALFACE_TEST_DATA"), reason="VOCALFACE_TEST_DATA is not set")
def test_real_clips_that_must_be_refused(tmp_path, capsys):
    clips = Path(os.environ["VOCALFACE_TEST_DATA"]) / "clips"
    if not (clips / "silent.mp4").exists():
        pytest.skip("no clips there")
    assert "2 s" in fails(
        capsys, "train", cut(clips / "map.mp4", tmp_path / "c.mp4", 30), "-o", tmp_path / "a.vface", "--quiet"
    )


def cut(source: Path, target: Path, frames: int) -> Path:
    clip = media.open_clip(source)
    with media.VideoWriter(target, clip.width, clip.height, sound=source) as video:
        for frame in clip.at(25).iterate(0, frames):
            video.write(frame)
    return target
