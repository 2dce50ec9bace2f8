"""The trainings of the official networks as a user starts them: from a folder of clips to a file of weights.

| name | learns from | wants | goes without |
|---|---|---|---|
| sadtalker.expnet | speech and expression of clips | sound | Wav2Lip, landmarks, networks that draw and read lips |
| sadtalker.posevae | speech and head pose; every person is a style | sound | Wav2Lip (the voice's encoder) |
| sadtalker.renderer | two frames of one run | | VGG-19 |
| sadtalker.mapping | two frames of one run and their coefficients | a renderer's weights | VGG-19, its pose estimator |

Started by `torchrun` the processes share each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocalface import assets
from vocalface.errors import AssetError, ConfigError, ObservationsError
from vocalface.nn.wav2lip import SYNC_FRAMES
from vocalface.observe import corpus
from vocalface.sadtalker import (
    checkpoints,
    lip_reading,
    losses,
    teachers,
    train_expnet,
    train_facevid2vid,
    train_mapping,
    train_posevae,
    train_report,
    train_run,
)
from vocalface.sadtalker.expnet import EXPRESSIONS
from vocalface.sadtalker.open_weights import check_output
from vocalface.sadtalker.posevae import POSE
from vocalface.training import distributed, settings
from vocalface.training.distributed import World
from vocalface.training.progress import Reporter


@dataclass(frozen=True)
class Request:
    """What a user asks for."""

    name: str
    corpus: Path | None
    output: Path | None = None  # default: NAME.safetensors
    preset: str = "official"
    set: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    resume: bool = True
    coefficients: teachers.Choice = "auto"
    renderer: Path | None = None  # of the mapping; with `mapping`, what draws the lips that ExpNet's training reads
    mapping: Path | None = None


@dataclass(frozen=True)
class Given:
    """What a trainer is built from."""

    config: Any
    runs: list[corpus.Run]
    world: World
    source: corpus.Coefficients
    renderer: Path | None
    mapping: Path | None
    progress: corpus.Progress | None


class Windows:
    """Mel windows of a run [T, 1, 80, 16], read when a slice is asked for."""

    def __init__(self, run: corpus.Run) -> None:
        self.run = run

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.run.mel(part.start, part.stop)


# ------------------------------------------------------------------------------------------------------------ the four
def expnet(given: Given) -> train_expnet.Trainer:
    wav2lip, known = wav2lip_here(), [None] * len(given.runs)
    if wav2lip is not None:
        known = distributed.first_then_all(
            lambda: teachers.lips(
                given.runs, wav2lip, given.source, device=given.world.device, progress=given.progress
            ),
            given.world,
        )
    return train_expnet.Trainer(
        [talking(r, lips) for r, lips in zip(given.runs, known)], given.config, given.world,
        voice=wav2lip.audio_encoder.state_dict() if wav2lip else None,
        landmarks=teachers.landmark_model(given.source.name), lip_reading=reader(given),
    )  # fmt: skip


def talking(run: corpus.Run, lips: np.ndarray | None = None) -> train_expnet.Clip:
    return train_expnet.Clip(Windows(run), np.array(run.coefficients[:, :EXPRESSIONS]), lips)


def reader(given: Given) -> lip_reading.LipReader | None:
    """What reads lips, where Wav2Lip's synchrony network is here and something draws by the corpus' coefficients; it
    reads stretches of five frames alone."""
    expert = assets.find(teachers.SYNCNET)
    if None in (expert, given.renderer, given.mapping) or given.config.frames != SYNC_FRAMES:
        return None
    return lip_reading.LipReader(
        given.runs, train_mapping.load_renderer(given.renderer), checkpoints.load_mapping(given.mapping),
        checkpoints.load_wav2lip(expert, "syncnet"), given.world.device, given.config.read,
    )  # fmt: skip


def posevae(given: Given) -> train_posevae.Trainer:
    wav2lip, people = wav2lip_here(), sorted({r.identity for r in given.runs})
    clips = [turning(r, people.index(r.identity)) for r in given.runs]
    voice = {f"audio_encoder.{k}": v for k, v in wav2lip.audio_encoder.state_dict().items()} if wav2lip else None
    return train_posevae.Trainer(clips, given.config, given.world, voice=voice)


def turning(run: corpus.Run, style: int = 0) -> train_posevae.Clip:
    return train_posevae.Clip(Windows(run), np.array(run.coefficients[:, EXPRESSIONS : EXPRESSIONS + POSE]), style)


def renderer(given: Given) -> train_facevid2vid.Trainer:
    return train_facevid2vid.Trainer(given.runs, given.config, given.world, vgg=vgg_here())


def mapping(given: Given) -> train_mapping.Trainer:
    stage1 = train_mapping.load_renderer(given.renderer)
    return train_mapping.Trainer(given.runs, stage1, given.config, given.world, vgg=vgg_here())


@dataclass(frozen=True)
class Training:
    """One of the four."""

    presets: Mapping[str, Any]
    build: Callable[[Given], train_run.Trainer]
    sound: bool = False  # clips without sound are of no use
    takes: tuple[str, ...] = ()  # of the renderer's and the mapping's weights
    reads: Callable[[corpus.Run], Any] = lambda run: run  # what `Trainer.examine` takes of a run


TRAININGS: dict[str, Training] = {
    "sadtalker.expnet": Training(
        train_expnet.PRESETS, expnet, sound=True, takes=("renderer", "mapping"), reads=talking
    ),
    "sadtalker.posevae": Training(train_posevae.PRESETS, posevae, sound=True, reads=turning),
    "sadtalker.renderer": Training(train_facevid2vid.PRESETS, renderer),
    "sadtalker.mapping": Training(train_mapping.PRESETS, mapping, takes=("renderer",)),
}


def train(asked: Request, reporter: Reporter, say: Callable[[str], None] = lambda line: None) -> dict:
    """Prepare the corpus, train, and write the weights.

    Args:
        say: takes lines about what stands in for what; called in one process alone.

    Returns:
        weights, report, figures (the last losses), examined (of people that were held out, if any were), terms,
        coefficients, runs, held_out, skipped; nothing in a process that does not lead.

    Raises:
        ConfigError, ObservationsError, AssetError, DeviceError, OutputError.
    """
    training, config, output = checked(asked)
    cuda = asked.device == "cuda" or (asked.device == "auto" and torch.cuda.is_available())
    world = distributed.join("cuda" if cuda else "cpu")
    world.check(config.batch)
    source = teachers.coefficients(asked.coefficients, world.device)
    progress = reporter.count if world.leads else None
    found = distributed.first_then_all(
        lambda: corpus.prepare(asked.corpus, coefficients=source, progress=progress), world
    )
    runs = [r for r in found.training if r.has_sound or not training.sound]
    if not runs:
        raise ObservationsError(
            f"no clip for {asked.name} has sound", asked.corpus, "give clips of talking people with their sound"
        )
    trainer = training.build(Given(config, runs, world, source, *drawing(asked, training, source), progress))
    about = {"coefficients": source.name}
    if world.leads:
        for key, value in (about | trainer.terms).items():
            say(f"{key}: {value}")
        for name in sorted({r.clip for r in found.held_out}):
            say(f"held out {name}")
        for name, reason in found.skipped.items():
            say(f"left out {name}: {reason}")
    bar = reporter.start(config.steps, "training") if world.leads else None
    strangers = [r for r in found.held_out if r.has_sound or not training.sound]
    whom, judged = ("held out", strangers) if strangers else ("people it learned from", runs)
    page, shown = output.with_suffix(".report.html"), {}

    def report(history: train_report.History) -> None:
        made = trainer.examine([training.reads(r) for r in judged])
        shown.update(made.figures)
        words = about | trainer.terms | {"runs": len(runs), "steps": config.steps, "batch": config.batch}
        train_report.write(page, f"{asked.name}: {output.name}", words, history, made, whom)

    figures = train_run.run(trainer, output, resume=asked.resume, progress=bar, about=about, report=report)
    reporter.close()
    distributed.leave()
    if not world.leads:
        return {}
    say(f"{whom}: " + ", ".join(f"{name} {value:.4g}" for name, value in shown.items()))
    say(f"report: {page}")
    return {
        "weights": str(output), "report": str(page), "figures": figures, "examined": {"whom": whom, **shown},
        "terms": trainer.terms, **about, "runs": len(runs),
        "held_out": len(found.held_out), "skipped": found.skipped,
    }  # fmt: skip


def checked(asked: Request) -> tuple[Training, Any, Path]:
    """Training, configuration and output, before anything is computed."""
    training = TRAININGS.get(asked.name)
    if training is None:
        raise ConfigError(f"there is no network {asked.name!r}", "vocalface train", f"use {', '.join(TRAININGS)}")
    if asked.preset not in training.presets:
        own = ["open"] if asked.name in ("sadtalker.expnet", "sadtalker.posevae") else []
        raise ConfigError(
            f"no preset is called {asked.preset!r}", "--preset", f"use {', '.join([*training.presets, *own])}"
        )
    config = training.presets[asked.preset]
    config = replace(config, **{"seed": asked.seed, **settings.parse(asked.set, type(config))})
    if asked.corpus is None:
        raise ConfigError(
            "no material is given", "CORPUS", f"vocalface train {asked.name} FOLDER, a folder of clips"
        )  # fmt: skip
    output = asked.output or Path(f"{asked.name.removeprefix('sadtalker.')}.safetensors")
    check_output(output)
    for option in ("renderer", "mapping"):
        path = getattr(asked, option)
        if path is not None and option not in training.takes:
            raise ConfigError(f"{asked.name} takes no {option}", f"--{option}", "leave it out")
        if path is not None and not path.is_file():
            raise AssetError(
                f"the {option}'s weights are not there", path, f"vocalface train sadtalker.{option} CORPUS"
            )
    if "mapping" in training.takes and (asked.renderer is None) != (asked.mapping is None):
        raise ConfigError("lips are drawn by a renderer and its mapping", "--renderer", "give --mapping as well")
    if training.takes == ("renderer",) and asked.renderer is None and assets.find(teachers.RECON) is None:
        raise AssetError(
            "the mapping moves a renderer, whose weights are not given", "--renderer",
            f"vocalface train sadtalker.renderer {asked.corpus}, or vocalface fetch sadtalker",
        )  # fmt: skip
    return training, config, output


def drawing(asked: Request, training: Training, source: corpus.Coefficients) -> tuple[Path | None, Path | None]:
    """Weights of renderer and mapping: those that are given, or the published ones; a mapping speaks one kind of
    coefficients, the published one Deep3DFaceRecon's. Raises ConfigError when it is another than the corpus'."""
    stage1, stage2 = (getattr(asked, n) if n in training.takes else None for n in ("renderer", "mapping"))
    if "renderer" in training.takes and stage1 is None:
        stage1 = assets.find(teachers.RECON)
    if "mapping" in training.takes and stage2 is None and source.name == teachers.Reconstructed.name:
        stage2 = assets.find(teachers.MAPPING)
    if stage2 is not None and asked.mapping is not None:
        spoken = checkpoints.about(stage2).get("coefficients", teachers.Reconstructed.name)
        if spoken != source.name:
            raise ConfigError(
                f"the mapping knows coefficients of {spoken}, the corpus has those of {source.name}", stage2,
                "train it on this corpus, or choose others with --coefficients",
            )  # fmt: skip
    return stage1, stage2


# ----------------------------------------------------------------------------------------------------- what may be here
def wav2lip_here():
    path = assets.find(teachers.WAV2LIP)
    return checkpoints.load_wav2lip(path) if path else None


def vgg_here() -> losses.Vgg19 | None:
    path = assets.find(losses.VGG19)
    if path is None:
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle can make torch raise anything
        raise AssetError("not a checkpoint of weights alone", path, f"vocalface fetch {losses.VGG19}") from error
    return losses.Vgg19().load_published(state)
