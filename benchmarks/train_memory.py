"""Peak memory of a training on long footage, phase by phase.

The footage is looped to `--frames` (forwards and backwards, so that nothing jumps), then `vocalface train` runs on it
in a process of its own, whole, with its stages cut short: the frame file, every stage, the head and its validation
see all those frames, and what a longer stage would add is time.

python benchmarks/train_memory.py                        the presenter at 512 px, 8,000 frames
python benchmarks/train_memory.py --obs anchor.obs       observations of your own
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

STEPS = {"speech_steps": 200, "face_steps": 300, "mouth_steps": 200, "fuse_steps": 200, "warmup_steps": 100}


def loop(source: Path, folder: Path, frames: int) -> Path:
    """Observations of `frames` frames whose frame i is the source's frame mirror(i)."""
    from vocalface import media
    from vocalface.hmtalker.drive import mirror
    from vocalface.observe import store
    from vocalface.types import Sound

    obs = store.load(source)
    order = mirror(np.arange(frames), len(obs))
    start = int(obs.info.get("start_frame", 0))
    spoken = media.open_clip(obs.clip).speech().samples[start * 640 : (start + len(obs)) * 640]
    spoken = np.pad(spoken, (0, len(obs) * 640 - len(spoken)))
    sound = Sound(np.resize(np.concatenate([spoken, spoken[::-1]]), frames * 640), 16_000)
    kept = [(f.image, f.labels, f.head_alpha, f.torso) for f in store.frames(obs)]
    writer = store.ObservationsWriter(folder / "looped.obs", obs.size)
    with media.VideoWriter(folder / "looped.mp4", obs.size, obs.size, sound=sound, preset="ultrafast") as video:
        for j in order:
            image, *layers = kept[j]
            video.write(image)
            writer.add(*layers)
    track = dataclasses.replace(obs.track, **{k: v[order] for k, v in vars(obs.track).items()})
    clip = folder / "looped.mp4"
    return writer.finish(
        clip=clip, clip_hash=store.file_hash(clip), crop=dataclasses.replace(obs.crop, x=0, y=0, side=obs.size),
        camera=obs.camera, track=track, plate=obs.plates[:1],
    ).folder  # fmt: skip


class Peaks:
    """A progress that notes the peak of the resident memory of every phase (VmHWM, Linux), in MB."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.label = "start"

    def enter(self, label: str) -> None:
        if label != self.label:
            self.note()
            self.label = label
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew

    def note(self) -> None:
        line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
        self.rows[self.label] = max(self.rows.get(self.label, 0), int(line.split()[1]) // 1024)

    def count(self, done: int, total: int, label: str = "") -> None:
        self.enter(label)

    def start(self, total: int, label: str = "") -> "Peaks":
        self.enter(label)
        return self

    def update(self, done: int, **values) -> None:
        self.enter(f"stage: {values['stage']}" if "stage" in values else self.label)

    def close(self) -> None:
        self.note()


def train(folder: Path, size: int, held_out: int) -> None:
    """The measured process."""
    import resource

    from vocalface.hmtalker.config import preset
    from vocalface.hmtalker.train import train as run
    from vocalface.observe import store

    obs = store.load(folder)
    config = preset("fast").replace(size=size, val_fraction=held_out / len(obs), pose_refine_steps=4, **STEPS)
    peaks = Peaks()
    head = run(obs, folder.parent / "a.vface", config=config, progress=peaks)
    used = resource.getrusage(resource.RUSAGE_SELF)  # it starts no other processes
    print(json.dumps({
        "peaks": peaks.rows, "cpu": used.ru_utime + used.ru_stime, "frames": head.frames,
        "bytes": (folder.parent / "a.vface").stat().st_size,
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--obs", type=Path)
    parser.add_argument("--frames", type=int, default=8000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        return train(a.child, a.size, a.held_out)
    if a.build:
        from vocalface import presenter

        obs = a.obs or presenter.make(a.build / "presenter", 8.0, size=a.size).folder
        return print(loop(obs, a.build, a.frames))
    same = ["--frames", str(a.frames), "--size", str(a.size), "--held-out", str(a.held_out)]
    with tempfile.TemporaryDirectory() as folder:

        def child(*arguments: str) -> str:
            command = [sys.executable, __file__, *arguments, *same]
            return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]

        looped = child("--build", folder, *(["--obs", str(a.obs)] if a.obs else []))
        out = json.loads(child("--child", looped))
    print(f"{out['frames']} frames at {a.size} px; {out['cpu']:.0f} s of processor; head {out['bytes'] >> 20} MB")
    print(f"{'phase':16} peak MB")
    for label, peak in out["peaks"].items():
        print(f"{label:16} {peak:7}")
    print(f"{'largest':16} {max(out['peaks'].values()):7}")


if __name__ == "__main__":
    main()
