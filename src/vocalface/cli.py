"""The command line: one function a verb. Only this file prints, exits or reads `sys.argv`.

Heavy imports happen inside a verb, so that `--help` is instant.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vocalface.errors import ConfigError, DeviceError, MediaError, OutputError, VocalfaceError

Device = Literal["auto", "cpu", "cuda"]
DISK = {  # errors of the operating system that a user mends -> how
    errno.ENOSPC: "free some space, or choose another disk", errno.EDQUOT: "free some space, or choose another disk",
    errno.EFBIG: "raise the limit on file size (ulimit -f), or choose another disk",
    errno.EROFS: "choose another folder", errno.EACCES: "choose another folder", errno.EPERM: "choose another folder",
}  # fmt: skip


@dataclass(kw_only=True)
class Common:
    """What every verb takes."""

    json: bool = False
    """Print one JSON object as the last line of stdout."""
    quiet: bool = False
    """No progress on stderr."""
    debug: bool = False
    """Show the traceback of an error."""
    seed: int = 0
    """Everything random is drawn from it."""
    device: Device = "auto"
    """Where to compute."""


Output = Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="PATH")]
Positional = tyro.conf.Positional


@dataclass(kw_only=True)
class Observe(Common):
    """See and hear a clip: face track, action units, head pose, masks, layers; and grade the footage."""

    clip: Positional[Path]
    output: Output = None
    """Folder of the observations (default CLIP.obs)."""
    size: int = 512
    """Side of the square crop, px."""
    au_table: Path | None = None
    """An OpenFace table (au.csv) to take the action units from."""
    face: str = "largest"
    """Which face, when there are several: largest, or its number from the left."""


@dataclass(kw_only=True)
class Train(Common):
    """Train a talking head on one person's clip or its observations.

    Or a network that serves everybody: `train articulation`, the speech encoder; `train sadtalker.expnet --preset open`
    and `train sadtalker.posevae --preset open`, lips and head of `animate`, from generated speech and your CORPUS;
    `train sadtalker.expnet|posevae|renderer|mapping CORPUS`, SadTalker's own networks (also by torchrun).
    """

    clip: Positional[Path]
    """A clip, its observations, or the name of a network."""
    material: Annotated[Positional[Path | None], tyro.conf.arg(metavar="CORPUS")] = None
    """What a network learns from: a folder of clips, or of their observations."""
    output: Output = None
    """The head (default CLIP.vface), or a network's weights (.safetensors)."""
    preset: str | None = None
    """Of a head: paper, fast (default), demo or tiny. Of a network: official (default), tiny; open."""
    size: int | None = None
    """Training resolution, px (default: the preset's)."""
    resume: bool = True
    """Go on from an interrupted run."""
    consent: str | None = None
    """How the person agreed to this, in your words; stored in the head."""
    set: tuple[str, ...] = ()
    """Single fields of the configuration, e.g. --set fusion=concat face_steps=2000."""
    au_table: Path | None = None
    """An OpenFace table (au.csv) to take the action units from."""
    face: str = "largest"
    """Which face, when there are several: largest, or its number from the left."""
    corpus: Path | None = None
    """The same as CORPUS."""
    coefficients: Literal["auto", "deep3d", "procedural"] = "auto"
    """sadtalker.*: of Deep3DFaceRecon (see `vocalface fetch sadtalker`), of our own face, or whichever is here."""
    renderer: Path | None = None
    """sadtalker.mapping, sadtalker.expnet: weights of sadtalker.renderer (default: the published ones)."""
    mapping: Path | None = None
    """sadtalker.expnet: weights of sadtalker.mapping, to draw the lips that are read (default: the published ones)."""


@dataclass(kw_only=True)
class Speak(Common):
    """Make a head say speech: a video with sound."""

    head: Positional[Path]
    speech: Positional[Path]
    output: Output = None
    """The video (default SPEECH.mp4)."""
    upper: Literal["reference", "blink", "still"] = "reference"
    """Where brows and lids come from."""
    pose: str = "reference"
    """Head pose: reference, still, or a .npy file [T, 4, 4] of world-to-camera matrices."""
    background: str = "plate"
    """plate, alpha (.mov or .webm), or a colour."""
    au: tuple[str, ...] = ()
    """Edits of the predicted action units: "AU12=+1.5" adds, "AU26=0.8x" scales, "AU25=2" sets."""
    paste_back: Path | None = None
    """The uncropped source video to paste the result into."""
    silence: Literal["close", "free"] = "close"
    """In pauses: close the mouth, or leave it to the model."""
    amplitude: Literal["match", "free"] = "match"
    """Swing of the lips in other voices: as wide as in the trained one, or left to the model."""
    smooth: float = 0.5
    """Strength of the lag-free smoothing, 0 to 1."""
    mouth_gain: float = 1.0
    """Opening of the mouth about its closed shape."""
    start: int = 0
    """First frame of the reference track."""


@dataclass(kw_only=True)
class Animate(Common):
    """Make a picture of a face say speech: a video with sound. Photographs, paintings, statues, cartoons."""

    portrait: Positional[Path]
    speech: Positional[Path | None] = None
    output: Output = None
    """The video (default PORTRAIT.mp4)."""
    renderer: Literal["mesh", "official"] = "mesh"
    """mesh: the built-in one. official: the published SadTalker, see `vocalface fetch sadtalker`; wants a GPU."""
    idle: float = 0.0
    """No speech: so many seconds in which the portrait only blinks and breathes."""
    face: str = "largest"
    """Which face, when there are several: largest, its number from the left, or x,y,w,h px about it."""
    crop: Literal["crop", "full", "extcrop", "extfull", "resize"] = "crop"
    """crop: the square about head and shoulders; full: the whole picture, that square put back. The official renderer
    also has a wider square (extcrop, extfull) and the whole picture squeezed into one (resize)."""
    still: bool = False
    """The head rests; lips and lids move."""
    expression_scale: float = 1.0
    """Opening of the mouth and play of the brows, 0 to 3."""
    head_scale: float = 1.0
    """Motion of the head, 0 to 3."""
    pose_style: int | None = None
    """How the head moves: one of the published styles, 0 to 45; the built-in renderer lays them out from calm to
    lively."""
    head_style: float | None = None
    """How the head moves, built-in renderer: 0 calm to 7 lively (default 3)."""
    yaw: str = ""
    """Turn to the image's right, degrees: one angle, or several spread over the video, e.g. --yaw=-20,20. The official
    renderer counts as its networks do."""
    pitch: str = ""
    """Turn downwards, degrees; as --yaw."""
    roll: str = ""
    """Turn clockwise, degrees; as --yaw."""
    pose_from: Path | None = None
    """A video whose head motion is taken, played to and fro."""
    blink_from: Path | None = None
    """A video whose blinks are taken, the eyes' alone, played to and fro."""
    gaze: str = ""
    """Where the eyes look: degrees to the image's right and down, e.g. --gaze=10,-5."""
    emotion: str = ""
    """Built-in renderer: happy, sad, surprised, angry, disgusted, afraid or tired, or less of it: happy=0.5."""
    expression: Path | None = None
    """Official renderer: a .npy file of 64 numbers, added to the expression coefficients."""
    enhancer: Path | None = None
    """Face restoration by a network of your own (.onnx, or TorchScript .pt), applied to every drawn square."""
    enhancer_signed: bool = False
    """The enhancer works in [-1, 1] instead of [0, 1], as GFPGAN does."""
    size: Literal[256, 512] = 256
    """Official renderer: which of the published weights."""
    batch: int | None = None
    """Official renderer: frames drawn at once (default: 8 on a GPU, 2 elsewhere)."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Official renderer: of its convolutions; auto is bfloat16 on a GPU that has it, float32 elsewhere."""
    expnet: Path | None = None
    """Lips by weights of your own: `train sadtalker.expnet --preset open`."""
    posevae: Path | None = None
    """Head by weights of your own: `train sadtalker.posevae --preset open`."""


@dataclass(kw_only=True)
class Ablate(Common):
    """Train the paper's ablations on clips or observations; a table with mean and spread over seeds."""

    clips: Positional[tuple[Path, ...]] = ()
    output: Output = None
    """Folder of the runs (default ./ablation); finished runs are not trained again."""
    preset: str = "demo"
    """paper, fast, demo or tiny."""
    size: int | None = None
    """Training resolution, px (default: the preset's)."""
    seeds: int = 3
    """Runs of each variant on each clip."""
    variants: tuple[str, ...] = ("hybrid", "implicit", "explicit")
    """hybrid, implicit, explicit, concat, fixed, blendshape, 3dmm, expnet, mel, no-mask, masked-1:7:2, mask-0.9."""
    set: tuple[str, ...] = ()
    """Single fields of the configuration."""
    au_table: Path | None = None
    """An OpenFace table (au.csv) to take the action units from."""
    face: str = "largest"
    """Which face, when there are several: largest, or its number from the left."""


@dataclass(kw_only=True)
class Evaluate(Common):
    """Measure videos, alone or against the true one."""

    videos: Positional[tuple[Path, ...]] = ()
    reference: Path | None = None
    """The true video."""
    output: Output = None
    """A report.html (default: none)."""


@dataclass(kw_only=True)
class Fetch(Common):
    """Download model files (checked by hash) into the user's cache."""

    names: Positional[tuple[str, ...]] = ()


@dataclass(kw_only=True)
class Doctor(Common):
    """Say what is here, what is missing, and the command that mends it."""


@dataclass(kw_only=True)
class Demo(Common):
    """Everything on a synthetic presenter: footage, training, held-out speech, side-by-side video, report."""

    output: Output = None
    """Folder (default ./demo)."""
    seconds: float = 40.0
    """Length of the presenter's footage."""
    preset: str = "demo"
    """Of the training: demo, tiny, fast or paper."""


@dataclass(kw_only=True)
class Bench(Common):
    """How fast a head speaks on this machine, part by part."""

    head: Positional[Path]


@dataclass(kw_only=True)
class Present(Common):
    """Make the presenter's footage and its exact observations."""

    output: Output = None
    """Folder (default ./presenter)."""
    seconds: float = 30.0
    """Length of the footage."""
    size: int = 256
    """Side of the picture, px."""
    voice: str = "ada"
    """Who speaks: ada, ben, cleo, dan, eve or finn."""


# --------------------------------------------------------------------------------------------------------------- verbs
def observe(a: Observe) -> dict:
    from vocalface.observe import grade
    from vocalface.observe import observe as run

    obs = run(a.clip, a.output, size=a.size, au_table=a.au_table, face=a.face, progress=reporter(a).count)
    folder = obs.folder
    findings = grade.grade(obs)
    report = grade.write_report(obs, findings, folder / "report.html")
    for f in findings:
        say(a, f"{f.status:5} {f.name}: {f.value}" + (f"  ({f.advice})" if f.advice and f.status != "pass" else ""))
    return {
        "observations": str(folder), "frames": len(obs), "report": str(report),
        "grade": [vars(f) if not hasattr(f, "_asdict") else f._asdict() for f in findings], "result": str(folder),
    }  # fmt: skip


HEAD_ONLY = ("size", "consent", "au_table", "face")  # options of `train` that networks have no use for
NETWORK_ONLY = ("material", "corpus", "coefficients", "renderer", "mapping")


def train(a: Train) -> dict:
    name = str(a.clip)
    network = name == "articulation" or name.startswith("sadtalker.")
    refuse(a, HEAD_ONLY if network else NETWORK_ONLY, name if network else "a head")
    if name == "articulation":
        refuse(a, NETWORK_ONLY, name)
        return train_articulation(a)
    if network:
        return train_network(a)
    from vocalface.hmtalker.config import preset
    from vocalface.hmtalker.head import Head
    from vocalface.hmtalker.train import choose_device
    from vocalface.hmtalker.train import train as run

    choose_device(a.device)
    config = preset(a.preset or "fast")
    if a.size:
        config = config.at_size(a.size)
    config = config.replace(seed=a.seed, **overrides(a.set))
    output = a.output or Path(f"{a.clip.name.split('.')[0]}.vface")
    Head.check_output(output)  # before the long look at the clip
    progress = reporter(a)
    obs = observations(a.clip, config.size, a, progress, output.parent)
    head = run(obs, output, config=config, device=a.device, resume=a.resume, consent=a.consent, progress=progress)
    rows = head.metrics.get("rows", {})
    for name, values in rows.items():
        numbers = "  ".join(f"{k} {v:.2f}" for k, v in values.items() if isinstance(v, float))
        say(a, f"{name:15} {numbers}")
    return {
        "head": str(output),
        **head.metrics,
        "report": str(output.with_suffix(".report.html")),
        "result": str(output),
    }


def train_articulation(a: Train) -> dict:
    """The articulatory encoder, from speech that tools on this machine generate."""
    from vocalface.articulation.train import train as run

    output = a.output or Path("articulatory.safetensors")
    progress = reporter(a)
    figures = run(output, seed=a.seed, progress=lambda phase, done, total: progress.count(done, total, phase))
    progress.close()
    for key, value in figures.items():
        say(a, f"{key}: {value}")
    return {"weights": str(output), "figures": figures, "result": str(output)}


def train_network(a: Train) -> dict:
    """SadTalker's networks from a corpus, or the open ones of the built-in renderer; by torchrun on many processes."""
    if a.material and a.corpus:
        raise ConfigError("the corpus is given twice", "--corpus", "leave one of them out")
    name, material = str(a.clip), a.material or a.corpus
    if a.preset == "open" and name in ("sadtalker.expnet", "sadtalker.posevae"):
        refuse(a, ("coefficients", "renderer", "mapping"), f"{name} --preset open")
        return train_open(a, name.removeprefix("sadtalker."), material)
    from vocalface.sadtalker import trainings

    progress = reporter(a)
    made = trainings.train(
        trainings.Request(
            name, material, a.output, a.preset or "official", a.set, a.seed, a.device, a.resume, a.coefficients,
            a.renderer, a.mapping,
        ),
        progress, lambda line: say(a, line),
    )  # fmt: skip
    return {**made, "result": made["weights"]} if made else {}


def train_open(a: Train, kind: str, material: Path | None) -> dict:
    """The open motion networks of the built-in renderer, from generated speech and the user's own observations."""
    from vocalface.sadtalker.open_corpus import settings
    from vocalface.sadtalker.open_corpus import train as run

    output = a.output or Path(f"open_{kind}.safetensors")
    progress = reporter(a)
    figures = run(
        kind, material, output, seed=a.seed, resume=a.resume, **settings(kind, a.set),
        progress=lambda phase, done, total: progress.count(done, total, phase),
    )  # fmt: skip
    progress.close()
    for key, value in figures.items():
        say(a, f"{key}: {value}")
    return {"weights": str(output), "figures": figures, "result": str(output)}


def refuse(a: Train, names: tuple[str, ...], who: str) -> None:
    """Raises ConfigError for options that are set and would not be heeded."""
    for name in names:
        if getattr(a, name) != Train.__dataclass_fields__[name].default:
            option = "CORPUS" if name == "material" else f"--{name.replace('_', '-')}"
            raise ConfigError(f"{who} has no {option}", option, "leave it out")


def observations(source: Path, size: int, a: Train | Ablate, progress, folder: Path):
    """A folder of observations, a TalkingGaussian / ER-NeRF data folder, or a clip that is observed into `folder`."""
    from vocalface import media
    from vocalface.observe import observe as run
    from vocalface.observe import store

    if source.is_dir():
        check_observed(source, a)
        if (source / "transforms_train.json").exists():
            from vocalface.observe import datasets

            return datasets.load(source)
        return store.load(source)
    if not media.open_clip(source).has_sound:  # before the long look at it
        raise MediaError("the clip has no sound track", source, "give a clip with the person's own speech in it")
    target = folder / f"{source.stem}.obs"
    return run(source, target, size=max(size, 256), au_table=a.au_table, face=a.face, progress=progress.count)


def check_observed(folder: Path, a: Train | Ablate) -> None:
    """Raises ConfigError for options that only an observation can heed, unless `folder` was observed with them."""
    from vocalface.observe import store

    if not a.au_table and a.face == "largest":
        return
    try:
        key = json.loads((folder / "observations.json").read_text())["info"]["key"]
        same = (not a.au_table or key["au_table"] == store.file_hash(a.au_table)) and key["face"] == a.face
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        option = "--au-table" if a.au_table else "--face"
        raise ConfigError(
            f"{folder} is observed already, without this {option}", option,
            f"give the clip itself, or observe it with {option} and train on that",
        )  # fmt: skip


def speak(a: Speak) -> dict:
    from vocalface.hmtalker.drive import Options
    from vocalface.hmtalker.drive import speak as run

    alpha = a.background == "alpha"
    output = a.output or Path(a.speech.stem + (".mov" if alpha else ".mp4"))
    options = Options(
        upper=a.upper, pose=a.pose, background=a.background, au=a.au, close_in_silence=a.silence == "close",
        match_voice=a.amplitude == "match", smooth=a.smooth, mouth_gain=a.mouth_gain, start=a.start, seed=a.seed,
    )  # fmt: skip
    made = run(a.head, a.speech, output, options=options, paste_back=a.paste_back, progress=reporter(a))
    return {
        "video": str(made.video), "frames": made.frames, "seconds": round(made.seconds, 3), "fps": round(made.fps, 1),
        "result": str(made.video),
    }  # fmt: skip


ONLY = {  # options of `animate` that one renderer alone has
    "official": ("expression", "size", "batch", "precision"), "mesh": ("emotion", "head_style", "expnet", "posevae"),
}  # fmt: skip


def animate(a: Animate) -> dict:
    from vocalface.sadtalker.direction import angles_of
    from vocalface.sadtalker.gaze import check as check_gaze

    other = "mesh" if a.renderer == "official" else "official"
    for name in ONLY[other]:
        if getattr(a, name) != Animate.__dataclass_fields__[name].default:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"the {a.renderer} renderer has no {option}", option, f"leave it out, or --renderer {other}"
            )
    if a.idle and a.speech is not None:
        raise ConfigError("speech and --idle exclude each other", "--idle", "leave one of them out")
    if not 0 <= a.idle <= 24 * 3600:
        raise ConfigError(f"--idle {a.idle:g} is no length", "--idle", "give seconds, e.g. --idle 5")
    turns = {name: angles_of(getattr(a, name), f"--{name}") for name in ("yaw", "pitch", "roll")}
    shared = {
        "idle": a.idle, "face": a.face, "progress": reporter(a),
        "gaze": check_gaze(angles_of(a.gaze, "--gaze")) if a.gaze else None,
    }  # fmt: skip
    if a.enhancer:
        from vocalface.sadtalker.enhance import load as load_enhancer

        shared["enhance"] = load_enhancer(a.enhancer, a.enhancer_signed)
    output = a.output or Path(a.portrait.stem + ".mp4")
    made = (animate_official if a.renderer == "official" else animate_mesh)(a, output, turns, shared)
    if made.faces > 1:
        say(a, f"{made.faces} faces in {a.portrait}: speaks the one by --face {made.face}")
    return {
        "video": str(made.video), "frames": made.frames, "seconds": round(made.seconds, 3), "fps": round(made.fps, 1),
        "renderer": a.renderer, "faces": made.faces, "face": made.face, "result": str(made.video),
    }  # fmt: skip


def animate_mesh(a: Animate, output: Path, turns: dict, shared: dict):
    from vocalface.sadtalker.direction import Direction, blink_track, head_track, landmarks_of
    from vocalface.sadtalker.drive import animate as run
    from vocalface.sadtalker.emotion import parse
    from vocalface.sadtalker.motion import Style, style_of

    if a.crop not in ("crop", "full"):
        raise ConfigError(f"the built-in renderer has no crop {a.crop!r}", "--crop", "use --crop crop or --crop full")
    style = Style(
        a.expression_scale, a.head_scale, a.still, a.seed, style_of(a.pose_style, a.head_style),
        str(a.expnet) if a.expnet else None, str(a.posevae) if a.posevae else None,
    )  # fmt: skip
    turns["mood"] = parse(a.emotion)
    Direction(**turns)  # said before any video is read
    direction = Direction(
        **turns, head=head_track(landmarks_of(a.pose_from)) if a.pose_from else None,
        blink=blink_track(landmarks_of(a.blink_from)) if a.blink_from else None,
    )  # fmt: skip
    return run(a.portrait, a.speech, output, style=style, direction=direction, whole=a.crop == "full", **shared)


def animate_official(a: Animate, output: Path, turns: dict, shared: dict):
    import torch

    from vocalface.sadtalker.coefficients import Settings, read_expression
    from vocalface.sadtalker.official import View
    from vocalface.sadtalker.official import animate as run

    cuda = a.device == "cuda" or (a.device == "auto" and torch.cuda.is_available())
    settings = Settings(
        pose_style=a.pose_style or 0, expression_scale=a.expression_scale, head_scale=a.head_scale, still=a.still,
        seed=a.seed, expression=read_expression(a.expression) if a.expression else None,
    )  # fmt: skip
    return run(
        a.portrait, a.speech, output, mode=a.crop, size=a.size, device="cuda" if cuda else "cpu", settings=settings,
        view=View(**turns), batch=a.batch, precision=a.precision, pose_from=a.pose_from, blink_from=a.blink_from,
        **shared,
    )  # fmt: skip


def ablate(a: Ablate) -> dict:
    from vocalface.hmtalker.ablate import ablate as run
    from vocalface.hmtalker.ablate import check_variants, table
    from vocalface.hmtalker.config import preset

    if not a.clips:
        raise ConfigError("no clip is given", "vocalface ablate", "vocalface ablate CLIP… --variants hybrid implicit")
    check_variants(a.variants)
    if len({c.stem for c in a.clips}) < len(a.clips):
        raise ConfigError("two clips have one name", ", ".join(map(str, a.clips)), "rename one of them")
    config = preset(a.preset)
    if a.size:
        config = config.at_size(a.size)
    config = config.replace(**overrides(a.set))
    progress = reporter(a)
    folder = a.output or Path("ablation")
    folder.mkdir(parents=True, exist_ok=True)
    clips = {c.stem: observations(c, config.size, a, progress, folder) for c in a.clips}
    rows = run(clips, folder, config, variants=a.variants, seeds=a.seeds, progress=progress)
    text = table(rows)
    (folder / "table.md").write_text(text + "\n")
    say(a, text)
    return {"rows": [vars(r) for r in rows], "result": str(folder / "table.md")}


def evaluate(a: Evaluate) -> dict:
    from vocalface.metrics.evaluate import evaluate as run
    from vocalface.metrics.evaluate import write_report

    if not a.videos:
        raise ConfigError("no video is given", "vocalface evaluate", "vocalface evaluate VIDEO --reference TRUE_VIDEO")
    if a.output:  # before minutes of measuring
        from vocalface.training.files import check_writable

        check_writable(a.output)
    results = [run(v, a.reference, progress=reporter(a).count) for v in a.videos]
    for video, result in zip(a.videos, results):
        say(a, str(video))
        for row in result.rows:
            value = "n/a" if row.value is None else f"{row.value:.4g}"
            say(a, f"  {row.name:18} {value:>10}  {row.region:10} {row.protocol}")
    out: dict = {"evaluations": [r.to_json() for r in results]}
    if a.output:
        out["result"] = str(write_report(results, a.output))
    return out


def bench(a: Bench) -> dict:
    import tempfile

    from vocalface.hmtalker.bench import bench as run
    from vocalface.hmtalker.head import Head

    with tempfile.TemporaryDirectory() as folder:
        out = run(Head.load(a.head), Path(folder))
    say(a, f"{out['gaussians']} Gaussians at {out['size']} px; {out['machine']}")
    for part in out["parts"]:
        say(a, f"  {part.name:24} {part.wall:7.2f} ms wall {part.cpu:7.2f} ms processor")
    say(a, f"speaks at {out['speak_fps']} frames a second, encoding included ({out['draw_fps']} without)")
    return {**out, "parts": [vars(p) for p in out["parts"]]}


def fetch(a: Fetch) -> dict:
    from vocalface import assets

    paths = assets.fetch(list(a.names), progress=reporter(a).count)
    return {"files": [str(p) for p in paths], "result": "\n".join(str(p) for p in paths)}


def doctor(a: Doctor) -> dict:
    from vocalface import doctor as room

    findings = room.check()
    for f in findings:
        mark = {"ok": "ok", "missing": "MISSING", "weak": "weak"}[f.status]
        say(a, f"{mark:8} {f.name}: {f.detail}" + (f"\n         mend: {f.mend}" if f.status != "ok" and f.mend else ""))
    return {"findings": [vars(f) for f in findings]}


def present(a: Present) -> dict:
    from vocalface import presenter

    folder = a.output or Path("presenter")
    obs = presenter.make(folder, a.seconds, seed=a.seed, size=a.size, voice=a.voice, progress=reporter(a).count)
    return {"observations": str(obs.folder), "clip": str(obs.clip), "frames": len(obs), "result": str(obs.clip)}


def demo(a: Demo) -> dict:
    from vocalface.demo import run

    made = run(a.output or Path("demo"), seconds=a.seconds, preset=a.preset, seed=a.seed, progress=reporter(a))
    for line in made.lines:
        say(a, line)
    return {**made.numbers, "result": str(made.video)}


VERBS: dict[str, tuple[type, Callable]] = {
    "observe": (Observe, observe),
    "train": (Train, train),
    "speak": (Speak, speak),
    "animate": (Animate, animate),
    "evaluate": (Evaluate, evaluate),
    "ablate": (Ablate, ablate),
    "bench": (Bench, bench),
    "present": (Present, present),
    "demo": (Demo, demo),
    "fetch": (Fetch, fetch),
    "doctor": (Doctor, doctor),
}


# -------------------------------------------------------------------------------------------------------------- helpers
def say(a: Common, line: str) -> None:
    """Human-readable output; with --json it goes to stderr, so that stdout's last line is the object."""
    print(line, file=sys.stderr if a.json else sys.stdout)


def reporter(a: Common):
    from vocalface.training.progress import Reporter

    return Reporter(enabled=not a.quiet)


def check_device(a: Common) -> None:
    """Raises DeviceError for --device cuda where there is none; most verbs compute on the CPU in any case."""
    if a.device == "cuda" and not isinstance(a, Train):
        import torch

        if not torch.cuda.is_available():
            raise DeviceError("no CUDA device is visible to PyTorch", "--device cuda", "leave --device out")


def overrides(pairs: tuple[str, ...]) -> dict:
    """`("fusion=concat", "face_steps=2000")` -> values of the head configuration's own types."""
    from vocalface.hmtalker.config import Config
    from vocalface.training.settings import parse

    return parse(pairs, Config, "see hmtalker/config.py for the names")


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit code 0, 2 for what a user can mend, 130 when interrupted."""
    # libgomp's threads spin after each operation and starve our own pool; this must be set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from vocalface import __version__

    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["--version"], ["-V"]):
        print(f"vocalface {__version__}")
        return
    args = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, (kind, _) in VERBS.items()}, prog="vocalface", args=argv,
        description="Speech to talking-head video.", config=(tyro.conf.OmitArgPrefixes,),
    )  # fmt: skip
    run = next(f for kind, f in VERBS.values() if type(args) is kind)
    try:
        check_device(args)
        out = run(args)
    except VocalfaceError as error:
        fail(args, error)
    except KeyboardInterrupt:
        if not follows(args):
            print("interrupted; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    except MemoryError:
        fail(args, VocalfaceError("out of memory", "this machine", "use a smaller --size"))
    except OSError as error:  # the disk, wherever nobody knew better; anything else is a fault of ours
        if error.errno not in DISK:
            raise
        fail(args, OutputError(f"cannot write ({error.strerror})", error.filename or "-", DISK[error.errno]))
    result = out.pop("result", None)
    if result:
        say(args, result)
    if args.json and out:  # of several processes one answers
        print(json.dumps(out, default=str))


PATIENCE = 10.0  # s that a process waits for the first one of its machine to say what all of them met


def follows(a: Common) -> bool:
    """Whether this is one of a training's processes, and not the first on its machine."""
    return isinstance(a, Train) and os.environ.get("LOCAL_RANK", "0") != "0"


def fail(a: Common, error: VocalfaceError) -> None:
    if follows(a):
        time.sleep(PATIENCE)  # torchrun ends the others when the first has failed; who lives on met it alone
    if a.debug:
        traceback.print_exc()
    print(f"vocalface: {error}", file=sys.stderr)
    if a.json:
        print(json.dumps({"error": error.what, "where": error.where, "fix": error.fix}))
    raise SystemExit(2) from None


if __name__ == "__main__":
    main()
