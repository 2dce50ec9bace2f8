"""Killed, interrupted, or out of disk in the middle of a verb: nothing is lost, and the same command goes on.

Each run is a process of its own, stopped at a named step of its progress, so that no test waits or guesses.
"""

import itertools
import json
import os
import resource
import shutil
import signal
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "hmtalker"))
import drawn
import stand_ins

from vocalface import assets, media
from vocalface.errors import AssetError
from vocalface.hmtalker.head import Head
from vocalface.observe import store
from vocalface.types import Sound

pytestmark = pytest.mark.early

KILL, STOP, FULL = "kill", "stop", "full"
SMALL = 2000  # bytes a file may have when the disk is full: the child's own words fit, no video, array or head does
TRAIN = (
    "--preset", "tiny", "--set", "face_gaussians=200", "mouth_gaussians=50", "warmup_steps=6", "face_steps=16",
    "mouth_steps=8", "fuse_steps=8", "speech_steps=5", "pose_refine_steps=1", "audio=mel", "checkpoint_seconds=0",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- within the child process
def strike(label: str, count: int, how: str) -> None:
    """At the `count`-th report of progress under `label`: die, be interrupted, or find the disk full."""
    from vocalface.training import progress

    update, seen = progress.Progress.update, itertools.count(1)

    def reported(self, done, **values):
        if values.get("stage", self.label) == label and next(seen) == count:
            act(how)
        return update(self, done, **values)

    progress.Progress.update = reported


def act(how: str) -> None:
    if how == FULL:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
    else:
        os.kill(os.getpid(), signal.SIGKILL if how == KILL else signal.SIGINT)


def strike_last_move() -> None:
    """Dies when the old folder of observations no longer counts and the new one does not yet."""
    replace = Path.replace

    def moved(self, target):
        if Path(target).name == "observations.json":
            act(KILL)
        return replace(self, target)

    Path.replace = moved


def without_models() -> None:
    from vocalface.observe import landmarks, watch

    landmarks.Landmarker, watch.LayerBuilder = stand_ins.landmarker(stand_ins.moving), stand_ins.Layers


def without_a_landmarker() -> None:
    """As `without_models`, and looking for a face is an error."""
    from vocalface.observe import landmarks

    without_models()
    landmarks.Landmarker = None


def child(argv: list[str], at: tuple | None, how: str, first: tuple, said: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background ignores it
    with open(said, "w") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    for prepare in first:
        prepare()
    if at:
        strike(*at, how)
    from vocalface.cli import main

    main(argv)


# ------------------------------------------------------------------------------------------------------- the other side
SERVER = get_context("forkserver")  # imports once and forks a clean process for every run
SERVER.set_forkserver_preload([
    "vocalface.cli", "vocalface.hmtalker.train", "vocalface.hmtalker.validate", "vocalface.hmtalker.drive",
    "vocalface.observe.watch", "vocalface.presenter", "vocalface.sadtalker.trainings",
    "torch._dynamo",  # which the first optimiser of every process would import: half of a child's time
])  # fmt: skip


@dataclass
class Done:
    returncode: int
    stderr: str


@pytest.fixture(scope="module")
def vocalface(tmp_path_factory):
    """The command line in a process of its own; `at` = (label, count) says where `how` strikes."""
    said = tmp_path_factory.mktemp("said") / "stderr"

    def run(*argv, at=None, how=KILL, first=()) -> Done:
        process = SERVER.Process(target=child, args=([str(a) for a in argv], at, how, first, str(said)))
        process.start()
        process.join()
        return Done(process.exitcode, said.read_text())

    return run


def finished(done: Done) -> None:
    assert done.returncode == 0, done.stderr


def struck(done: Done, how: str = KILL) -> None:
    """The child ended as `how` asks: killed, or with one line, or with three."""
    if how == KILL:
        assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
        return
    said = [line for line in done.stderr.splitlines() if " left" not in line]
    if how == STOP:
        assert done.returncode == 130 and len(said) == 1 and said[0].startswith("interrupted"), done.stderr
    else:
        assert done.returncode == 2 and len(said) == 3, done.stderr
        assert "cannot" in said[0] and said[1].startswith("  where:") and said[2].startswith("  mend:")


def hidden(folder: Path) -> list[str]:
    """What is left of unfinished files."""
    return [str(p) for p in folder.rglob("*") if p.name.startswith(".") or ".part" in p.name]


def content(obs) -> dict:
    """Everything a folder of observations says, but for when and where it was made."""
    said = json.loads((obs.folder / "observations.json").read_text())
    said.pop("source")
    for key in ("created", "seconds"):
        said["info"].pop(key, None)
    layers = {name: list(media.read_layer(obs.folder / f"{name}.mkv")) for name in store.LAYERS}
    names = {p.name for p in obs.folder.iterdir()}
    return {**vars(obs.track), **layers, "plates": obs.plates, "header": json.dumps(said), "names": sorted(names)}


def differing(a: dict, b: dict) -> list[str]:
    return [k for k in a.keys() | b.keys() if k not in a or k not in b or not np.array_equal(a[k], b[k])]


def pictures(path: Path) -> list:
    return list(media.open_clip(path).at(25).iterate())


# ------------------------------------------------------------------------------------------------------------- material
@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """2.4 s of moving gray with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    y, x = np.mgrid[0:128, 0:128]
    tone = Sound((0.1 * np.sin(np.arange(16_000 * 2.4) / 5)).astype(np.float32), 16_000)
    with media.VideoWriter(path, 128, 128, sound=tone) as video:
        for k in range(60):
            video.write(np.repeat(((x + y + k) % 256).astype(np.uint8)[..., None], 3, axis=2))
    return path


@pytest.fixture(scope="module")
def observed(vocalface, clip):
    """What an uninterrupted run observes."""
    folder = clip.parent / "whole.obs"
    finished(vocalface("observe", clip, "-o", folder, "--size", "64", "--quiet", first=(without_models,)))
    return content(store.load(folder))


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    return drawn.observations(tmp_path_factory.mktemp("drawn"), frames=55)


@pytest.fixture(scope="module")
def whole(vocalface, person):
    """The head of an uninterrupted training."""
    path = person.folder.parent / "whole.vface"
    finished(vocalface("train", person.folder, "-o", path, *TRAIN, "--quiet"))
    return path


# -------------------------------------------------------------------------------------------------------------- observe
def test_observe_killed_in_each_pass_goes_on_to_the_same(vocalface, clip, observed, tmp_path):
    folder = tmp_path / "a.obs"
    command = "observe", clip, "-o", folder, "--size", "64", "--quiet"
    for label, count, how in (("shots", 5, STOP), ("shots", 5, KILL), ("faces", 20, KILL)):
        struck(vocalface(*command, at=(label, count), how=how, first=(without_models,)), how)
        assert not (folder / "observations.json").exists() and (how == KILL or not folder.exists())
    struck(vocalface(*command, at=("layers", 20), first=(without_models,)))
    assert not (folder / "observations.json").exists() and (folder / "landmarks.npz").exists()
    struck(vocalface(*command, first=(without_models, strike_last_move)))
    assert not (folder / "observations.json").exists(), "half moved is not whole"
    finished(vocalface(*command, first=(without_a_landmarker,)))  # the faces were kept
    assert not hidden(tmp_path)
    assert not differing(content(store.load(folder)), observed)


def test_observe_stopped_keeps_what_was_observed_before(vocalface, clip, observed, tmp_path):
    folder = tmp_path / "a.obs"
    shutil.copytree(clip.parent / "whole.obs", folder)
    larger = "observe", clip, "-o", folder, "--size", "96", "--quiet"
    for at, how in ((("faces", 60), FULL), (("layers", 60), FULL), (("layers", 20), STOP)):
        struck(vocalface(*larger, at=at, how=how, first=(without_models,)), how)
        assert not hidden(tmp_path)
        (folder / "landmarks.npz").unlink(missing_ok=True)
        assert not differing(content(store.load(folder)), observed)
    finished(vocalface(*larger, first=(without_models,)))
    assert store.load(folder).size == 96 and not (folder / "landmarks.npz").exists()


# ---------------------------------------------------------------------------------------------------------------- train
def test_train_stopped_again_and_again_goes_on_to_the_same_bits(vocalface, person, whole, tmp_path):
    path = tmp_path / "a.vface"
    path.write_bytes(b"an older head")
    command = "train", person.folder, "-o", path, *TRAIN, "--quiet"
    for at, how in (
        (("frames", 30), FULL), (("frames", 30), KILL), (("speech", 2), STOP), (("face", 9), KILL),
        (("mouth", 3), FULL), (("fuse", 5), KILL), (("packing", 20), KILL), (("validating", 2), FULL),
    ):  # fmt: skip
        struck(vocalface(*command, at=at, how=how), how)
        assert path.read_bytes() == b"an older head"
        assert how == KILL or not [p for p in hidden(tmp_path) if ".part" in p]
    finished(vocalface(*command))
    assert Head.load(path).digest == Head.load(whole).digest
    assert not hidden(tmp_path), "the work folder goes when the head is there"


# ---------------------------------------------------------------------------------------------------------------- speak
@pytest.mark.parametrize("how", [KILL, STOP, FULL])
def test_speak_stopped_leaves_no_video_and_starts_clean(vocalface, whole, speech, tmp_path, how):
    made = tmp_path / "made.mp4"
    finished(vocalface("speak", whole, speech, "-o", made, "--quiet"))
    command = "speak", whole, speech, "-o", tmp_path / "a.mp4", "--quiet"
    struck(vocalface(*command, at=("speaking", 12), how=how), how)
    assert not (tmp_path / "a.mp4").exists() and (how == KILL or not hidden(tmp_path))
    finished(vocalface(*command))
    assert not hidden(tmp_path)
    assert np.array_equal(pictures(tmp_path / "a.mp4"), pictures(made))
    before = made.read_bytes()
    struck(vocalface("speak", whole, speech, "-o", made, "--quiet", at=("speaking", 30), how=how), how)
    assert made.read_bytes() == before, "an older video stays"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_called_so(vocalface, whole, speech, tmp_path):
    (tmp_path / ".a.mp4.part.mp4").symlink_to("/dev/full")
    done = vocalface("speak", whole, speech, "-o", tmp_path / "a.mp4", "--quiet")
    assert done.returncode == 2 and done.stderr.splitlines()[0] == "vocalface: the disk is full"
    assert len(done.stderr.splitlines()) == 3 and not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------ presenter
@pytest.mark.parametrize("how", [KILL, STOP, FULL])
def test_present_stopped_leaves_nothing_that_counts(vocalface, tmp_path, how):
    command = "present", "-o", tmp_path / "p", "--seconds", "1", "--size", "64", "--quiet"
    struck(vocalface(*command, at=("presenter", 10), how=how), how)
    assert not list(tmp_path.rglob("observations.json")) and not (tmp_path / "p" / "presenter.mp4").exists()
    assert how == KILL or not hidden(tmp_path)
    finished(vocalface(*command))
    assert not hidden(tmp_path) and len(store.load(tmp_path / "p" / "presenter.obs")) == 25


# -------------------------------------------------------------------------------------------------------- real footage
@pytest.mark.slow
def test_a_real_clip_killed_in_each_pass_is_observed_all_the_same(vocalface, tmp_path):
    source = Path(os.environ.get("VOCALFACE_TEST_DATA", "")) / "clips" / "statement.mp4"
    if not source.is_file():
        pytest.skip("needs statement.mp4: set VOCALFACE_TEST_DATA to a folder that has clips/")
    for model in ("mediapipe/face_landmarker.task", "mediapipe/selfie_segmentation_256.tflite"):
        try:
            assets.path(model)
        except AssetError as error:
            pytest.skip(str(error).splitlines()[0])
    whole, folder = tmp_path / "whole.obs", tmp_path / "killed.obs"
    finished(vocalface("observe", source, "-o", whole, "--size", "128", "--quiet"))
    command = "observe", source, "-o", folder, "--size", "128", "--quiet"
    for at in (("faces", 40), ("layers", 40)):
        struck(vocalface(*command, at=at))
        assert not (folder / "observations.json").exists()
    finished(vocalface(*command))
    assert not differing(content(store.load(folder)), content(store.load(whole))) and not hidden(tmp_path)
