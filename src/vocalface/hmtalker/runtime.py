"""HM-Talker's networks at run time, in NumPy: what depends on position is computed once, frames are small products.

The twin of `model.py`, which is the specification; a test holds the two together (1e-5 a pixel). Caching follows the
structure of eqs. 8-9: H(mu) and both attentions are constant after training, so the first layer of the deformation
head is a cached [N, 64] plus [N, 39] @ [39, 64], where the 39 rows are scaled by the frame's control vectors.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vocalface.errors import ConfigError
from vocalface.hmtalker.config import MOUTH_REACH, Config
from vocalface.hmtalker.head import Head
from vocalface.types import LOWER_AUS, Gaussians

SH_C0 = 0.28209479177387814


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.float32(0.02) * x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


class Weights:
    """Arrays under a prefix, by the names of the torch modules."""

    def __init__(self, arrays: dict[str, np.ndarray], prefix: str) -> None:
        self.arrays, self.prefix = arrays, prefix

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[f"{self.prefix}{name}"]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        y = x @ self[f"{name}.weight"].T
        bias = self.arrays.get(f"{self.prefix}{name}.bias")
        return y if bias is None else y + bias

    def conv1d(self, name: str, x: np.ndarray) -> np.ndarray:
        """'Same' convolution over the last axis: [B, C, L] -> [B, C', L]."""
        w = self[f"{name}.weight"]
        k = w.shape[-1]
        padded = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2)))
        length = x.shape[-1]
        y = sum(np.einsum("oc,bcl->bol", w[:, :, j], padded[:, :, j : j + length]) for j in range(k))
        return y + self[f"{name}.bias"][None, :, None]


def encode(table: np.ndarray, base: float, desired: float, bound: float, x: np.ndarray) -> np.ndarray:
    """Tri-plane H(mu): [N, 3] -> [N, 36], bilinear; see model.TriPlaneEncoder."""
    levels = 12
    growth = np.log2(desired / base) / (levels - 1)
    unit = (x + bound) / (2 * bound)
    inside = ((unit >= 0) & (unit <= 1)).all(-1)
    pairs = [unit[:, [0, 1]], unit[:, [1, 2]], unit[:, [0, 2]]]
    out = np.zeros((3, levels, len(x)), np.float32)
    offset = 0
    for level in range(levels):
        size = base * 2 ** (level * growth)
        side = int(np.ceil(size - 1e-9)) + 1
        for plane, p in enumerate(pairs):
            grid = table[plane, offset : offset + side * side].reshape(side, side)
            at = np.clip(p * (size - 1) + 0.5, 0, side - 1)
            cell = np.minimum(at.astype(int), side - 2)
            u, v = (at - cell).T
            i, j = cell.T
            out[plane, level] = (
                grid[j, i] * (1 - u) * (1 - v) + grid[j, i + 1] * u * (1 - v)
                + grid[j + 1, i] * (1 - u) * v + grid[j + 1, i + 1] * u * v
            )  # fmt: skip
        offset += -(-(side * side) // 8) * 8
    return (out.reshape(36, -1).T * inside[:, None]).astype(np.float32)


def parse_au_edits(edits: Iterable[str]) -> np.ndarray:
    """`["AU12=+1.5", "AU26=0.8x"]` -> [10, 2] gain and offset on the predicted lower AUs.

    Raises ConfigError for an unknown unit or a value that is neither `+x`, `-x`, `=x` nor `Nx`.
    """
    table = np.stack([np.ones(len(LOWER_AUS)), np.zeros(len(LOWER_AUS))], axis=1).astype(np.float32)
    for edit in edits:
        name, _, value = edit.partition("=")
        name = name.strip().upper()
        if name not in LOWER_AUS:
            raise ConfigError(
                f"{name!r} is not a lower-face action unit", f"--au {edit}", f"use {', '.join(LOWER_AUS)}"
            )
        row = LOWER_AUS.index(name)
        try:
            if value.endswith("x"):
                table[row, 0] = float(value[:-1])
            elif value[:1] in "+-":
                table[row, 1] += float(value)
            else:
                table[row] = 0.0, float(value)
        except ValueError:
            raise ConfigError(
                f"cannot read the value {value!r}", f"--au {edit}", 'write "AU12=+1.5", "AU12=2" or "AU26=0.8x"'
            ) from None
    return table


class Runtime:
    """A head ready to draw: `controls` turns speech windows into control vectors, `pose` into Gaussians to splat."""

    def __init__(self, head: Head) -> None:
        a, c = head.arrays, head.config
        self.config: Config = c
        self.mean, self.std = a["feature_mean"], a["feature_std"]
        self.f, self.m = Weights(a, "face_net."), Weights(a, "mouth_net.")
        self.face = {k: a[f"face.{k}"] for k in ("means", "quats", "scales", "opacities", "sh0", "shn")}
        self.mouth = {k: a[f"mouth.{k}"] for k in ("means", "quats", "scales", "opacities", "sh0", "shn")}
        if c.deformation == "linear":
            self.basis = a["face.basis"].astype(np.float32)  # [N, C, K]
            mixed = self.f["mix.2.weight"] @ self.f["mix.0.weight"][:, -32:]
            self.lower_attention = np.linalg.norm(self.basis[:, :3] @ mixed, axis=(1, 2))
        else:
            h = encode(self.f["encoder.table"], 16, 256 * c.bound, c.bound, self.face["means"])
            lower = self.f.linear("attend_lower.2", relu(self.f.linear("attend_lower.0", h)))
            upper = relu(self.f.linear("attend_upper.2", relu(self.f.linear("attend_upper.0", h))))
            w = self.f["head.0.weight"]  # [64, 36 + E + U + 32]
            if c.embedding:
                h = np.concatenate([h, a["face.embedding"]], axis=1)
            self.first_static = h @ w[:, : h.shape[1]].T  # [N, 64]
            self.first_moving = w[:, h.shape[1] :]  # [64, U + 32]
            self.attention = np.concatenate([upper, lower], axis=1).astype(np.float32)  # [N, U + 32]
            self.lower_attention = np.linalg.norm(lower, axis=1)
        hm = encode(self.m["encoder.table"], 64, 384 * c.bound, c.bound, self.mouth["means"])
        self.mouth_static = hm @ self.m["head.0.weight"][:, :36].T
        self.opacity = {"face": sigmoid(self.face["opacities"]), "mouth": sigmoid(self.mouth["opacities"])}
        self.closed = a["closed.c_f"], a["closed.mouth"]
        self.swing = (float(a["swing.gain"][0]), a["swing.centre"]) if "swing.gain" in a else None
        self.voice = None  # (mean [32], spread) of the trained voice's c_f and mouth; heads of old have none
        if "voice.spread" in a:
            self.voice = [(a[f"voice.{k}"], float(s)) for k, s in zip(("c_f", "mouth"), a["voice.spread"])]
        self.identity_pose = np.eye(4, dtype=np.float32)

    # ---------------------------------------------------------------------------------------------------- controls
    def _speech(self, w: Weights, windows: np.ndarray) -> np.ndarray:
        x = leaky(w.linear("speech.net.0", windows))
        x = leaky(w.linear("speech.net.2", x))
        x = w.linear("speech.net.4", x)  # [B, L, 32]
        y = np.swapaxes(x, 1, 2)
        for layer in range(0, 10, 2):
            y = leaky(w.conv1d(f"speech.attention.conv.{layer}", y))
        scores = w.linear("speech.attention.linear", y[:, 0])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        weights = scores / scores.sum(-1, keepdims=True)
        return np.einsum("bl,blc->bc", weights, x)

    def normalise(self, features: np.ndarray) -> np.ndarray:
        return np.clip((features - self.mean) / self.std, -6, 6).astype(np.float32)

    def controls(self, windows: np.ndarray, au_edits: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Normalised windows [B, L, D] -> c_f [B, 32], mouth [B, 32], alpha [B, 32], and predicted AUs [B, 10]."""
        c_i = self._speech(self.f, windows)
        if self.config.mapper == "expnet":
            x = np.swapaxes(windows, 1, 2)
            x = relu(self.f.conv1d("mapper.trunk.2", relu(self.f.conv1d("mapper.trunk.0", x))))
            reference = np.broadcast_to(self.f["mapper.reference"], (len(x), len(self.f["mapper.reference"])))
            c_e = relu(self.f.linear("mapper.head", np.concatenate([x.reshape(len(x), -1), reference], axis=1)))
        else:
            c_e = relu(self.f.linear("mapper.layers.2", relu(self.f.linear("mapper.layers.0", c_i))))
        units = self.config.explicit == "au"
        if units and au_edits is not None:
            c_e = c_e.copy()
            c_e[:, 22:] = np.clip(c_e[:, 22:] * au_edits[:, 0] + au_edits[:, 1], 0, 5)
        mode = self.config.fusion
        if mode in ("gate", "concat"):
            mixed = self.f.linear("fusion.mlp.2", relu(self.f.linear("fusion.mlp.0", np.concatenate([c_i, c_e], 1))))
        if mode == "concat":
            c_f, alpha = mixed, np.full_like(c_i, np.nan)
        else:
            fixed = {"fixed": self.config.fixed_alpha, "implicit": 0.0, "explicit": 1.0}
            alpha = sigmoid(mixed) if mode == "gate" else np.full_like(c_i, fixed[mode])
            c_f = alpha * c_e + (1 - alpha) * c_i
        if self.swing is not None:
            gain, centre = self.swing
            c_f = centre + np.float32(gain) * (c_f - centre)
        said = c_e[:, 22:] if units else np.full((len(c_e), 10), np.nan, np.float32)
        return {"c_f": c_f, "mouth": self._speech(self.m, windows), "alpha": alpha, "aus": said}

    # ------------------------------------------------------------------------------------------------------- frame
    def _deform(self, c_f: np.ndarray, c_u: np.ndarray) -> np.ndarray:
        if self.config.deformation == "linear":
            return self.basis @ self.f.linear("mix.2", leaky(self.f.linear("mix.0", np.concatenate([c_u, c_f]))))
        control = np.concatenate([c_u, c_f]).astype(np.float32)
        x = self.attention @ (self.first_moving * control).T
        x += self.first_static
        np.maximum(x, 0, out=x)
        x = x @ self.f["head.2.weight"].T
        np.maximum(x, 0, out=x)
        return x @ self.f["head.4.weight"].T

    def gaussians(self, c_f: np.ndarray, c_u: np.ndarray, mouth: np.ndarray, pose: np.ndarray):
        """Both fields deformed and moved into the camera's frame by `pose` [4, 4]: (face, mouth) Gaussians."""
        d = self._deform(c_f, c_u)
        tint = d[:, 10:13] * np.float32(0.1) if self.config.color_motion else None
        shift = d[:, :3] * np.float32(1e-2)
        face = self._place(self.face, self.opacity["face"], pose, shift, d[:, 3:7], d[:, 7:10], tint)
        w = self.m["head.0.weight"][:, 36:]
        x = relu(self.mouth_static + w @ mouth)
        x = relu(x @ self.m["head.2.weight"].T) @ self.m["head.4.weight"].T
        shift = x * np.array([2e-3, 1e-2, 2e-3], np.float32)
        shift = shift / (1 + np.abs(shift) / np.array(MOUTH_REACH, np.float32))
        return face, self._place(self.mouth, self.opacity["mouth"], pose, shift, None, None, None)

    def _place(self, raw: dict, opacity: np.ndarray, pose: np.ndarray, shift, turn, grow, tint) -> Gaussians:
        r, t = pose[:3, :3].astype(np.float32), pose[:3, 3].astype(np.float32)
        means = (raw["means"] + shift) @ r.T + t
        quats = raw["quats"] if turn is None else raw["quats"] + turn
        scales = softplus(raw["scales"] if grow is None else raw["scales"] + grow)
        return Gaussians(
            means.astype(np.float32), rotate_quats(r, quats).astype(np.float32), scales.astype(np.float32),
            opacity.astype(np.float32), self._colors(raw, -r.T @ t, tint),
        )  # fmt: skip

    def _colors(self, raw: dict, eye: np.ndarray, tint: np.ndarray | None) -> np.ndarray:
        rgb = raw["sh0"][:, 0] * np.float32(SH_C0) + np.float32(0.5)
        k = raw["shn"].shape[1]
        if k:
            d = raw["means"] - eye
            d = d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-12)
            x, y, z = d.T
            basis = [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
            if k > 3:
                basis += [
                    1.0925484305920792 * x * y, -1.0925484305920792 * y * z,
                    0.31539156525252005 * (2 * z * z - x * x - y * y), -1.0925484305920792 * x * z,
                    0.5462742152960396 * (x * x - y * y),
                ]  # fmt: skip
            rgb = rgb + np.einsum("kn,nkc->nc", np.stack(basis), raw["shn"])
        rgb = np.maximum(rgb, 0)
        return (rgb if tint is None else np.maximum(rgb + tint, 0)).astype(np.float32)


def rotate_quats(r: np.ndarray, quats: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] wxyz turned by the rotation matrix r [3, 3]."""
    w, x, y, z = matrix_to_quat(r)
    left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], np.float32)
    return quats @ left.T


def matrix_to_quat(r: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] -> unit quaternion wxyz."""
    trace = np.trace(r)
    if trace > 0:
        s = 2 * np.sqrt(1 + trace)
        return np.array([s / 4, (r[2, 1] - r[1, 2]) / s, (r[0, 2] - r[2, 0]) / s, (r[1, 0] - r[0, 1]) / s])
    i = int(np.argmax(np.diag(r)))
    j, k = (i + 1) % 3, (i + 2) % 3
    s = 2 * np.sqrt(max(1 + r[i, i] - r[j, j] - r[k, k], 1e-12))
    q = np.zeros(4)
    q[0] = (r[k, j] - r[j, k]) / s
    q[1 + i], q[1 + j], q[1 + k] = s / 4, (r[j, i] + r[i, j]) / s, (r[k, i] + r[i, k]) / s
    return q
