"""What speech says of a clip's lips: kernel ridge regression and CMDM, with and without its teacher, held-out frames.

python benchmarks/hearing.py me.obs          (a folder of `vocalface observe`; `vocalface present` makes one of its own)

r: correlation of predicted with seen AU25 and AU26 over the held-out tail, after the alignment and before any pixel;
spread: of the predictions against that of the seen units. Lag: frames by which lips are later than sound.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from vocalface.hmtalker.config import preset
from vocalface.hmtalker.data import prepare
from vocalface.hmtalker.train import Trainer
from vocalface.hmtalker.validate import predicted_units
from vocalface.observe import store
from vocalface.types import LOWER_AUS

UNITS = [LOWER_AUS.index("AU25"), LOWER_AUS.index("AU26")]


def row(name: str, said: np.ndarray, seen: np.ndarray) -> None:
    r = [np.corrcoef(said[:, k], seen[:, k])[0, 1] for k in UNITS]
    spread = [said[:, k].std() / seen[:, k].std() for k in UNITS]
    print(f"{name:44} r {r[0]:.2f} {r[1]:.2f}   spread {spread[0]:.2f} {spread[1]:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("obs", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    a = parser.parse_args()
    obs = store.load(a.obs)
    small = preset("fast").replace(size=64, face_gaussians=200, mouth_gaussians=50)
    with tempfile.TemporaryDirectory() as folder:
        for follow in (False, True):
            material = prepare(obs, small.replace(follow_drift=follow), Path(folder))
            if follow:
                shown = " ".join(f"{v:+.2f}" for v in material.drift[: material.train : max(material.train // 12, 1)])
                print(f"lag of the lips over the training part: {shown}")
            clock = "sound follows the lips" if follow else "sound as it is"
            rows = np.arange(material.train, material.frames)
            trainer = Trainer(material, small)
            row(
                f"kernel ridge regression, {clock}",
                trainer.teacher(trainer.windows(rows)).numpy(),
                material.explicit[rows],
            )
            for taught in (False, True):
                for seed in range(a.seeds):
                    config = small.replace(seed=seed, teacher=taught)
                    if not taught:  # what is best without it
                        config = config.replace(feature_noise=1.0, lr_align=4e-4)
                    trainer = Trainer(material, config)
                    for step in range(config.speech_steps):
                        trainer.advance(step)
                    with torch.no_grad():
                        said, seen = predicted_units(trainer, rows)
                    row(f"CMDM{', taught' if taught else ''}, {clock}, seed {seed}", said, seen)


if __name__ == "__main__":
    main()
