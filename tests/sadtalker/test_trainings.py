"""`vocalface train sadtalker.*`: from a folder of clips to weights, killed or not; what stands in for the absent."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from test_cli import fails
from test_interruption import finished, hidden, struck, vocalface  # noqa: F401

from vocalface import assets, cli, media, presenter
from vocalface.cli import main
from vocalface.errors import AssetError, ConfigError
from vocalface.nn.wav2lip import SyncNetColor
from vocalface.observe import corpus
from vocalface.sadtalker import checkpoints, teachers, train_expnet, train_mapping, train_run, trainings

pytestmark = pytest.mark.early

SMALL = ("--preset", "tiny", "--quiet", "--set", "steps=2", "batch=2", "checkpoint_seconds=0")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A presenter's clip and its observations, 2.2 s: no face has to be searched."""
    folder = tmp_path_factory.mktemp("clips")
    presenter.make(folder, 2.2, size=64)
    return folder


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path_factory):
    """No weights at hand, whatever this machine has."""
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path_factory.mktemp("assets")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def run(clips):
    return corpus.prepare(clips).runs[0]


# --------------------------------------------------------------------------------------------------------- command line
def light() -> None:
    """In the child: what costs seconds and is not what is tested here."""
    from test_train_posevae import SmallEar

    from vocalface.sadtalker import posevae

    posevae.AudioEncoder, teachers.landmark_model = SmallEar, lambda name: None


@pytest.mark.parametrize("name", ["renderer", "mapping", "expnet", pytest.param("posevae", marks=pytest.mark.slow)])
def test_killed_in_the_middle_it_goes_on_to_the_same_bits(vocalface, clips, renderer, tmp_path, name):  # noqa: F811
    extra = ("--renderer", renderer) if name == "mapping" else ()
    command = "train", f"sadtalker.{name}", clips, *extra, *SMALL
    if name == "renderer":
        whole = renderer
    else:
        whole = tmp_path / "whole.safetensors"
        finished(vocalface(*command, "-o", whole, first=(light,)))
    path = tmp_path / "a.safetensors"
    struck(vocalface(*command, "-o", path, at=("training", 2), first=(light,)))
    assert not path.exists() and list((tmp_path / ".a.work").rglob("step_000000001.safetensors"))
    finished(vocalface(*command, "-o", path, first=(light,)))
    assert not hidden(tmp_path)
    with safe_open(path, "pt") as made, safe_open(whole, "pt") as wanted:
        assert made.metadata() == wanted.metadata() and sorted(made.keys()) == sorted(wanted.keys())
        assert all(torch.equal(made.get_tensor(k), wanted.get_tensor(k)) for k in made.keys())  # noqa: SIM118


@pytest.fixture(scope="module")
def renderer(vocalface, clips, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("renderer") / "renderer.safetensors"
    finished(vocalface("train", "sadtalker.renderer", clips, *SMALL, "-o", path))
    return path


def test_what_was_learned_from_is_said_and_the_weights_load(clips, tmp_path, capsys):
    out = tmp_path / "e.safetensors"
    main(["train", "sadtalker.expnet", str(clips), *SMALL, "-o", str(out), "--json", "--seed", "3"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["weights"] == str(out) and said["figures"]["steps"] == 2 and said["figures"]["coefficients"] > 0
    assert said["coefficients"] == "procedural face" and said["runs"] == 1 and not said["skipped"]
    assert said["terms"]["landmarks and blinks"] == "on" and said["terms"]["voice"] == "from scratch"
    with safe_open(out, "pt") as file:
        header = file.metadata()
    assert header["kind"] == "sadtalker.expnet" and header["coefficients"] == "procedural face"
    assert json.loads(header["config"])["seed"] == 3 and json.loads(header["terms"]) == said["terms"]
    network = checkpoints.load_published(out, ["audio2exp"])["audio2exp"]
    made = network(torch.zeros(2, 1, 80, 16), torch.zeros(2, 64), torch.zeros(2, 1))
    assert made.shape == (2, 64) and made.isfinite().all()


def test_what_a_user_can_get_wrong(clips, renderer, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "silent").mkdir()
    with media.VideoWriter(tmp_path / "silent" / "a.mp4", 64, 64) as video:
        for _ in range(60):
            video.write(np.zeros((64, 64, 3), np.uint8))

    def said(*argv):
        return fails(capsys, "train", *argv, "--quiet")

    assert "no material is given" in said("sadtalker.renderer")
    assert "no video in this folder" in said("sadtalker.renderer", tmp_path / "empty")
    assert "no such folder" in said("sadtalker.posevae", tmp_path / "nowhere")
    assert "use sadtalker.expnet, sadtalker.posevae, sadtalker.renderer" in said("sadtalker.facevid2vid", clips)
    assert "use official, tiny, open" in said("sadtalker.expnet", clips, "--preset", "fast")
    assert "use official, tiny\n" in said("sadtalker.renderer", clips, "--preset", "open") + "\n"
    assert "use -o w.safetensors" in said("sadtalker.posevae", clips, "-o", tmp_path / "w.pth")
    assert "mkdir -p" in said("sadtalker.posevae", clips, "-o", tmp_path / "none" / "w.safetensors")
    assert "a folder has this name" in said("sadtalker.posevae", clips, "-o", folder(tmp_path / "w.safetensors"))
    text = said("sadtalker.mapping", clips)
    assert f"vocalface train sadtalker.renderer {clips}, or vocalface fetch sadtalker" in text
    assert "not there" in said("sadtalker.mapping", clips, "--renderer", tmp_path / "none.safetensors", *SMALL)
    assert "takes no renderer" in said("sadtalker.posevae", clips, "--renderer", renderer)
    assert "takes no mapping" in said("sadtalker.mapping", clips, "--renderer", renderer, "--mapping", renderer)
    assert "give --mapping as well" in said("sadtalker.expnet", clips, "--renderer", renderer)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other, {"kind": "sadtalker.mapping", "coefficients": "Deep3DFaceRecon"})
    text = said("sadtalker.expnet", clips, "--renderer", renderer, "--mapping", other)
    assert "knows coefficients of Deep3DFaceRecon, the corpus has those of procedural face" in text
    assert "vocalface fetch sadtalker" in said("sadtalker.expnet", clips, "--coefficients", "deep3d")
    assert "no option is called 'foo'" in said("sadtalker.expnet", clips, "--set", "foo=1")
    assert "'x' is no float" in said("sadtalker.expnet", clips, "--set", "lr=x")
    assert "positive" in said("sadtalker.expnet", clips, "--set", "batch=0")
    assert "no alignment" in said("sadtalker.mapping", clips, "--renderer", renderer, "--set", "alignment=x")
    assert "CUDA" in said("sadtalker.expnet", clips, "--device", "cuda") or torch.cuda.is_available()
    assert "twice" in said("sadtalker.expnet", clips, "--corpus", clips)
    assert "sadtalker.expnet has no --size" in said("sadtalker.expnet", clips, "--size", "64")
    assert "a head has no CORPUS" in said(clips / "presenter.mp4", clips)
    assert "articulation has no CORPUS" in said("articulation", clips)
    assert not hidden(tmp_path)


def folder(path):
    path.mkdir()
    return path


def test_a_corpus_without_sound_serves_the_renderer_alone(clips, run, tmp_path, monkeypatch, capsys):
    mute = replace(run, has_sound=False, held_out=False)
    away = replace(mute, clip="c.mp4", held_out=True)
    silent = corpus.Corpus([mute, away], {"b.mp4": "too short"}, "procedural face")
    monkeypatch.setattr(corpus, "prepare", lambda *_, **__: silent)
    monkeypatch.chdir(tmp_path)
    for name in ("expnet", "posevae"):
        assert f"no clip for sadtalker.{name} has sound" in fails(capsys, "train", f"sadtalker.{name}", "x", *SMALL)
    main(["train", "sadtalker.renderer", "x", *SMALL[:-2], "steps=1", "batch=2"])
    said = capsys.readouterr().out
    assert "left out b.mp4: too short" in said and "held out c.mp4" in said
    assert said.splitlines()[-1] == "renderer.safetensors"
    assert train_mapping.load_renderer(Path("renderer.safetensors")).size == 64


def test_a_batch_that_processes_cannot_share_is_refused_before_the_corpus_is_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainings.distributed, "join", lambda device: trainings.World(1, 3))
    said = fails(capsys, "train", "sadtalker.renderer", tmp_path, "-o", tmp_path / "r.safetensors", *SMALL)
    assert "a batch of 2 cannot be shared by 3 processes" in said


def test_of_the_processes_of_a_machine_the_first_says_what_all_of_them_meet(tmp_path, monkeypatch, capsys):
    wrong = ("train", "sadtalker.renderer", tmp_path, "-o", tmp_path / "x.pth")
    waited = []
    for rank in ("0", "1"):  # the second is alive after it waited: nobody else met this
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setattr(cli.time, "sleep", waited.append)
        assert "use -o x.safetensors" in fails(capsys, *wrong) and len(waited) == int(rank)

    def ended(seconds):
        raise SystemExit(15)  # as torchrun does once the first has failed

    monkeypatch.setattr(cli.time, "sleep", ended)
    with pytest.raises(SystemExit):
        main([str(a) for a in wrong])
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------------------- teachers
def test_coefficients_are_those_that_are_here(monkeypatch):
    assert teachers.coefficients("auto").name == teachers.coefficients("procedural").name == "procedural face"
    with pytest.raises(AssetError, match="is not here"):
        teachers.coefficients("deep3d")
    with pytest.raises(ConfigError, match="no coefficients"):
        teachers.coefficients("bfm")
    assert teachers.landmark_model("Deep3DFaceRecon") is None


def test_reconstructed_coefficients_are_asked_of_the_aligned_face(run):
    class Recon(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rest = torch.nn.Parameter(torch.zeros(1))

        def forward(self, faces):
            assert faces.shape[1:] == (3, 224, 224) and faces.min() >= 0 and faces.max() <= 1
            return torch.arange(257.0).expand(len(faces), -1)

    made = teachers.Reconstructed(Recon())([run.face(0)] * 3, np.array(run.landmarks[:3]), np.ones(3, bool))
    assert made.shape == (3, 73) and made.dtype == np.float32
    assert made[0, :64].tolist() == list(range(80, 144)) and made[0, 64:70].tolist() == [224, 225, 226, 254, 255, 256]
    assert 0.5 < made[0, 70] < 2 and np.abs(made[0, 71:] - 128).max() < 50  # scale, and where the face is


def test_our_own_face_shuts_its_eyes_by_au45_and_opens_its_mouth_by_au26():
    model = teachers.procedural_landmarks()
    rest, shut, wide = torch.zeros(64), torch.zeros(64), torch.zeros(64)
    shut[16], wide[15] = 1, 1
    assert train_expnet.openness(model(shut)) < 0.4 * train_expnet.openness(model(rest))
    gap = lambda points: (points[66] - points[62]).norm()  # noqa: E731 - inner lips
    assert gap(model(wide)) > gap(model(rest)) + 5
    assert 80 < float(model.mean[:, 0].max() - model.mean[:, 0].min()) < 180  # px of a face 224 px wide
    assert torch.equal(model(rest), model.mean) and not model.basis[17:].any()


def test_landmarks_of_the_basel_face(tmp_path):
    draw = np.random.default_rng(0)
    mean, moves, rows = draw.normal(size=(1, 300)), draw.normal(size=(300, 64)), draw.permutation(100)[:68]
    scipy.io.savemat(tmp_path / "bfm.mat", {"meanshape": mean, "exBase": moves, "keypoints": rows[None] + 1})
    model, beta = teachers.basel_landmarks(tmp_path / "bfm.mat"), draw.normal(size=64)
    shape = (mean[0] + moves @ beta).reshape(100, 3)[rows, :2]
    assert np.abs(model(torch.from_numpy(beta).float()).numpy() - 101.5 * shape).max() < 0.01
    scipy.io.savemat(tmp_path / "other.mat", {"meanshape": mean})
    for wrong in ("other.mat", "none.mat"):
        with pytest.raises(AssetError, match="no BFM_model_front"):
            teachers.basel_landmarks(tmp_path / wrong)


class Mirror(torch.nn.Module):
    """A Wav2Lip that gives the reference back, the louder the brighter."""

    def forward(self, mel, face):
        assert mel.shape[1:] == (1, 80, 16) and face.shape[1:] == (6, 96, 96)
        assert not face[:, :3, 48:].any() and torch.equal(face[:, :3, :48], face[:, 3:, :48])
        self.heard = torch.cat([self.heard, mel]) if hasattr(self, "heard") else mel
        return face[:, 3:]


def test_wav2lips_video_is_of_the_first_frame_and_hears_what_it_was_trained_to_hear(run):
    mirror = Mirror()
    faces = list(teachers.spoken(run, mirror, batch=20))
    first = run.face(0).astype(int)
    assert len(faces) == len(run) and all(np.abs(f - first).mean() < 3 for f in faces)  # colours keep their order
    wanted = run.mel(0, len(run))
    assert np.array_equal(mirror.heard[:-1].numpy(), wanted[1:]) and np.array_equal(mirror.heard[-1], wanted[-1])


def test_lips_are_made_once(run):
    class Counted:
        name, calls = "counted", 0

        def __call__(self, faces, points, valid):
            self.calls += 1
            assert len(list(faces)) == len(points) == len(valid) == len(run)
            assert valid[0] and not valid[1:].any() and np.array_equal(points[5], run.landmarks[0])
            return np.full((len(points), 73), 2, np.float32)

    source, told = Counted(), []
    for _ in range(2):
        (made,) = teachers.lips(
            [run], Mirror(), source, search=lambda image: [], progress=lambda *a: told.append(a)
        )  # fmt: skip
    assert made.shape == (len(run), 64) and (made == 2).all() and source.calls == 1 and told == [(1, 1, "lips")]
    teachers.kept(run).unlink()


def test_a_teacher_that_is_here_is_used(clips, run, tmp_path, monkeypatch, capsys):
    class Teacher(Mirror):
        def __init__(self):
            super().__init__()
            self.audio_encoder = checkpoints.ExpNet().audio_encoder

    torch.manual_seed(0)
    teacher = Teacher()
    monkeypatch.setattr(trainings, "wav2lip_here", lambda: teacher)
    np.save(teachers.kept(run), np.zeros((len(run), 64), np.float32))
    for name in ("expnet", "posevae"):
        out = tmp_path / f"{name}.safetensors"
        main(["train", f"sadtalker.{name}", str(clips), *SMALL[:-3], "steps=1", "batch=2", "-o", str(out)])
    said = capsys.readouterr().out
    assert "Wav2Lip's lips in 1 of 1 clips" in said and "voice: Wav2Lip's, frozen" in said
    loaded = checkpoints.load_published(tmp_path / "posevae.safetensors", ["audio2pose"])["audio2pose"]
    given = teacher.audio_encoder.state_dict()
    assert all(torch.equal(v, given[k]) for k, v in loaded.audio_encoder.audio_encoder.state_dict().items())
    teachers.kept(run).unlink()


def test_lips_are_read_where_all_that_takes_is_here(run, renderer, tmp_path, monkeypatch):
    stage1, config = train_mapping.load_renderer(renderer), train_expnet.ExpNetConfig(batch=1)
    train_run.run(
        train_mapping.Trainer([run], stage1, replace(train_mapping.PRESETS["tiny"], steps=1)),
        tmp_path / "m.safetensors", about={"coefficients": "procedural face"},
    )  # fmt: skip
    asked = trainings.Request("sadtalker.expnet", None, renderer=renderer, mapping=tmp_path / "m.safetensors")
    training, source = trainings.TRAININGS[asked.name], teachers.coefficients()
    drawing = trainings.drawing(asked, training, source)
    assert drawing == (renderer, asked.mapping)
    assert trainings.drawing(replace(asked, renderer=None, mapping=None), training, source) == (None, None)
    given = trainings.Given(config, [run], trainings.World(), source, *drawing, None)
    assert trainings.reader(given) is None  # no synchrony network
    monkeypatch.setattr(assets, "find", lambda name: Path(name) if name == teachers.SYNCNET else None)
    monkeypatch.setattr(checkpoints, "load_wav2lip", lambda path, which: SyncNetColor().eval())
    read = trainings.reader(given)
    batch = train_expnet.Batch(torch.zeros(1, 5, 1, 80, 16), *[None] * 4, [(0, 0)])
    made = torch.zeros(1, 5, 64, requires_grad=True)
    read(made, batch).backward()
    assert made.grad.isfinite().all()
    assert trainings.reader(replace(given, config=replace(config, frames=4))) is None


def test_weights_that_are_no_vgg_are_an_error(tmp_path, monkeypatch):
    place = tmp_path / "vgg" / "vgg19-dcbb9e9d.pth"
    place.parent.mkdir()
    monkeypatch.setenv("VOCALFACE_ASSETS", str(tmp_path))
    place.write_bytes(b"no weights")
    with pytest.raises(AssetError, match="weights alone"):
        trainings.vgg_here()
    torch.save({"a": torch.zeros(1)}, place)
    with pytest.raises(AssetError, match="not the weights of VGG-19"):
        trainings.vgg_here()
    assert {teachers.BASEL, teachers.WAV2LIP, teachers.RECON, "vgg/vgg19-dcbb9e9d.pth"} <= set(assets.registry())
