"""The head under a portrait: how well it fits, and how well its motions are those of real faces.

python benchmarks/portrait_head.py --portraits FOLDER [--turned] [--model ict procedural]
python benchmarks/portrait_head.py --clips A.mp4 B.mp4 [--model ict procedural] [--seconds 10]

portraits: root mean square and 95th percentile of how far landmarks are from the fitted head, sideways, mm on a face
0.14 m wide; milliseconds of processor time of the fit.
turned: instead, rigs turned by 35 degrees to either side. The truth is the fitted head turned the same way; what the
landmarks miss of it at rest is allowed for, and places are told from the bridge of the nose. How far landmarks are from
their places across the head, mm, root mean square: of nose, eyes and mouth, and of all; the width of the eye that is
turned away and how far the nose stands out, both to the truth's. And `Mouth.size`, a mouth's width to an adult's.
clips: a rig is built from the frame in which the mouth is shut and the face looks ahead. In every other frame its
motions and its place are chosen so that its landmarks lie as near to those that are seen as they can; what is left, mm:
of lips, of the lower face around them, cheeks and jaw in the frames whose mouths are open widest (every seventh), of
the rigid upper face and of the face's oval in those that are turned furthest, and of all landmarks in all frames.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from vocalface import media
from vocalface.errors import VocalfaceError
from vocalface.faces import NAMES, heads
from vocalface.faces.portrait import turning
from vocalface.observe.indices import FACE_OVAL, JAW, LIPS_INNER, LIPS_OUTER, LOWER_FACE, RIGID
from vocalface.observe.landmarks import Landmarker, automatic_crop
from vocalface.observe.pose import rotations
from vocalface.sadtalker import rig
from vocalface.sadtalker.motion import Pose
from vocalface.sadtalker.portrait import SIZE, load

PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
LIPS = sorted({*LIPS_OUTER, *LIPS_INNER})
CHEEKS = [
    50, 280, 101, 330, 36, 266, 205, 425, 187, 411, 207, 427, 147, 376, 123, 352, 116, 345, 117, 346, 118, 347, 142,
    371, 203, 423, 129, 358, 98, 327,
]  # fmt: skip
TURN = 35  # degrees
BRIDGE = [168, 6, 197]
INNER = [33, 133, 263, 362, 1, 4, 61, 291, 168, 13, 14]
BOTH_WAYS = ("jaw", "part", "close", "width", "round", "tuck", "upper", "brow")  # one motion each
PARTS = {"lips": LIPS, "lower": sorted({*LOWER_FACE} - {*LIPS, *JAW}), "cheeks": CHEEKS, "jaw": JAW}


def fits(folder: Path, models: list[str]) -> None:
    """A row a picture."""
    print("picture              " + "".join(f"{m:>12}: rms   95%   ms" for m in models))
    rows: dict[str, list[float]] = {m: [] for m in models}
    with Landmarker() as landmarker:
        for picture in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES):
            try:
                portrait = load(picture, search=landmarker.search)
            except VocalfaceError as error:
                print(f"{picture.name:20} {error.what}")
                continue
            text = ""
            for model in models:
                before = time.process_time()
                found = rig.measure(portrait.landmarks, SIZE, model)
                cost = 1e3 * (time.process_time() - before)
                off = 1e3 * found.scale * found.residual
                rows[model].append(float(np.sqrt((off**2).mean())))
                text += f"{'':12}  {rows[model][-1]:4.2f}  {np.percentile(off, 95):4.2f}  {cost:3.0f}"
            print(f"{picture.name:20} {text}", flush=True)
    print("median               " + "".join(f"{'':12}  {np.median(r):4.2f}{'':11}" for r in rows.values()))


def turned(folder: Path, model: str) -> None:
    """A row a picture and side."""
    print(f"{model:20}   yaw  inner  all  far eye  nose  mouth")
    rows, sizes = [], []
    with Landmarker() as landmarker:
        for picture in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES):
            try:
                built = rig.build(load(picture, search=landmarker.search).landmarks, SIZE, model)
            except VocalfaceError as error:
                print(f"{picture.name:20} {error.what}")
                continue
            sizes.append(built.mouth.size)
            for yaw in (-TURN, TURN):
                rows.append(beside_the_truth(built, yaw))
                off = "  {:4.2f}  {:4.2f}  {:5.2f}  {:5.2f}".format(*rows[-1])
                print(f"{picture.name:20}  {yaw:+4d}{off}  {sizes[-1]:5.2f}", flush=True)
    off = "  {:4.2f}  {:4.2f}  {:5.2f}  {:5.2f}".format(*np.median(rows, axis=0))
    print(f"{'median':20}      {off}  {np.median(sizes):5.2f}, {min(sizes):.2f} to {max(sizes):.2f}")


def beside_the_truth(built: rig.Rig, yaw: float) -> tuple[float, float, float, float]:
    """A rig turned by `yaw` degrees, and its fitted head turned likewise: inner and all landmarks, far eye, nose."""
    angle = float(np.radians(yaw))

    def from_bridge(points: np.ndarray) -> np.ndarray:
        return points[: rig.LANDMARKS] - points[BRIDGE].mean(0)

    truth = from_bridge(built.fitted.points * built.fitted.scale @ built.axes)
    missed = from_bridge(built.rest.astype(np.float64)) - truth
    truth = truth @ rig.rotation(angle, 0, 0).T
    drawn = from_bridge((built.deform(Pose(angles=(angle, 0.0, 0.0))) - built.origin).astype(np.float64) @ built.axes)
    across = 1e3 * (drawn - truth - missed)[:, 0]
    far = [263, 362] if yaw > 0 else [33, 133]
    eye = float(np.ptp(drawn[far, 0]) / np.ptp(truth[far, 0]))
    nose = float((drawn[1] - drawn[168])[0] / (truth[1] - truth[168])[0])
    return float(np.sqrt((across[INNER] ** 2).mean())), float(np.sqrt((across**2).mean())), eye, nose


def landmarks_of(clip: Path, seconds: float) -> np.ndarray:
    """[T, 478, 3] px of a crop, every other frame."""
    rows, box = [], None
    with Landmarker() as landmarker:
        for i, image in enumerate(media.open_clip(clip).at(25)):
            if i >= 25 * seconds:
                break
            if i % 2:
                continue
            if box is None:
                found = landmarker.search(image)
                if not found:
                    continue
                points = found[0].landmarks
                low, high = points[:, :2].min(0), points[:, :2].max(0)
                box = automatic_crop(np.concatenate([low, high])[None], image.shape[1], image.shape[0])
            found = landmarker.search(media.crop(image, box, SIZE))
            if found:
                rows.append(found[0].landmarks)
    return np.array(rows, np.float64)


def left_over(built: rig.Rig, seen: np.ndarray) -> np.ndarray:
    """What a rig's motions and place cannot explain of landmarks [468, 2] px: [468] mm."""
    use = [rig.FIELDS.index(name) for name in BOTH_WAYS]
    fields = built.fields.reshape(len(rig.FIELDS), -1, 3)[use, : rig.LANDMARKS].astype(np.float64)
    rest = built.rest[: rig.LANDMARKS].astype(np.float64)
    middle, focal = rest.mean(0), built.camera.fx
    amounts, turn, place = np.zeros(len(use)), built.axes.copy(), built.axes @ middle + built.origin
    for _ in range(5):
        arm = (rest - middle + np.tensordot(amounts, fields, 1)) @ turn.T
        p = arm + place
        z = p[:, 2:]
        off = seen - (p[:, :2] / z * focal + SIZE / 2)
        moves = np.concatenate([fields @ turn.T, turning(arm), np.eye(3)[:, None].repeat(rig.LANDMARKS, 1)])
        slopes = ((moves[..., :2] - moves[..., 2:] * p[:, :2] / z) / z * focal).reshape(len(moves), -1)
        ridge = np.append(1e-4 * (slopes[: len(use)] ** 2).sum(1), np.zeros(6))
        right = slopes @ off.ravel() - ridge * np.append(amounts, np.zeros(6))
        step = np.linalg.solve(slopes @ slopes.T + np.diag(ridge), right)
        amounts = amounts + step[: len(use)]
        turn, place = rotations(step[len(use) : -3]) @ turn, place + step[-3:]
    return 1e3 * np.linalg.norm(off, axis=1) * float(z.mean()) / focal


def explained(track: np.ndarray, model: str) -> dict[str, float]:
    """Millimetres by part of the face."""
    wide = np.linalg.norm(track[:, 454] - track[:, 234], axis=1)
    opened = np.linalg.norm(track[:, 13, :2] - track[:, 14, :2], axis=1) / wide
    yaw = (track[:, 454, 2] - track[:, 234, 2]) / wide
    start = int(np.argmin(3 * opened + np.abs(yaw)))
    built = rig.build(track[start].astype(np.float32), SIZE, model)
    left = np.array([left_over(built, points[: rig.LANDMARKS, :2]) for points in track])
    turned = np.abs(yaw - yaw[start])
    open_, away = (row >= np.percentile(row, 85) for row in (opened, turned))

    def rms(rows: np.ndarray, part: list[int] | slice) -> float:
        return float(np.sqrt((left[rows][:, part] ** 2).mean()))

    out = {name: rms(open_, part) for name, part in PARTS.items()}
    return {
        **out,
        "rigid": rms(away, RIGID),
        "oval": rms(away, FACE_OVAL),
        "all": rms(np.ones(len(left), bool), slice(0, 468)),
    }


def motions(clips: list[Path], models: list[str], seconds: float) -> None:
    """A row a clip and model."""
    names = [*PARTS, "rigid", "oval", "all"]
    print(f"{'clip':20} {'model':12}" + "".join(f"{n:>8}" for n in names))
    rows: dict[str, list[list[float]]] = {m: [] for m in models}
    for clip in clips:
        track = landmarks_of(clip, seconds)
        for model in models:
            found = explained(track, model)
            rows[model].append([found[n] for n in names])
            print(f"{clip.name:20} {model:12}" + "".join(f"{v:8.2f}" for v in rows[model][-1]), flush=True)
    for model, values in rows.items():
        print(f"{'mean':20} {model:12}" + "".join(f"{v:8.2f}" for v in np.mean(values, axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path)
    parser.add_argument("--turned", action="store_true")
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--model", nargs="+", choices=NAMES, default=[heads.head().name])
    parser.add_argument("--seconds", type=float, default=10.0)
    a = parser.parse_args()
    if a.portraits is None and not a.clips:
        parser.error("give --portraits FOLDER or --clips FILES")
    if a.portraits is not None and a.turned:
        for model in a.model:
            turned(a.portraits, model)
    elif a.portraits is not None:
        fits(a.portraits, a.model)
    if a.clips:
        motions(a.clips, a.model, a.seconds)


if __name__ == "__main__":
    main()
