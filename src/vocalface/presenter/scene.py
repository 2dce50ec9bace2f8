"""A person in a room: identity from a seed, light, and one frame with all its layers.

Convention: the room has the camera's place and axes x right, y up, z towards the camera; lights stand in the room. A
head or torso pose is a world-to-camera 4x4 in OpenCV axes (types.py).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from vocalface import media
from vocalface.presenter import body, hair, paint, surface
from vocalface.presenter.body import Part, vertex_normals
from vocalface.presenter.face import EYE_HALF, LIFT, MOUTH_Y, Face, bump, lid_margin, lid_meeting, smoothstep
from vocalface.render.mesh import render_mesh
from vocalface.types import AU_NAMES, FACE, HAIR, MOUTH, NECK, TORSO, Camera

DISTANCE = 0.86  # metres from the camera to the head's origin
FOCAL = 2.24  # focal length over the picture's side
HEAD_LABELS = (FACE, HAIR, MOUTH)
_FLIP = np.diag([1.0, -1.0, -1.0]).astype(np.float32)

# Light: direction in the room, colour (linear).
_LIGHTS = np.array([[-0.72, 0.50, 0.55], [0.80, 0.10, 0.62], [0.70, 0.45, -0.55], [-0.75, 0.35, -0.55]])
_LIGHTS = (_LIGHTS / np.linalg.norm(_LIGHTS, axis=1, keepdims=True)).astype(np.float32)
_COLORS = np.array([[1.16, 1.07, 0.97], [0.22, 0.24, 0.27], [0.50, 0.52, 0.56], [0.44, 0.40, 0.34]], np.float32)
_SKY, _GROUND = np.array([0.27, 0.28, 0.30], np.float32), np.array([0.12, 0.098, 0.085], np.float32)
_SKIN_WRAP = np.array([0.32, 0.14, 0.09], np.float32)  # light that seeps around the terminator under skin


@dataclass(frozen=True)
class Identity:
    """Who it is."""

    looks: paint.Looks
    style: str  # long or short hair
    hair_length: float
    part: float
    volume: float
    neck_depth: float
    neck_pointed: float
    shape: np.ndarray  # [9] deviations of the face's shape


@dataclass
class State:
    """What moves from frame to frame."""

    action_units: np.ndarray  # [17] 0..5
    head_pose: np.ndarray  # [4, 4] world to camera
    torso_pose: np.ndarray  # [4, 4] torso to camera
    gaze: np.ndarray = field(default_factory=lambda: np.zeros(2))  # right and up, rad
    tongue: float = 0.0  # 0..1, tip raised


@dataclass(frozen=True)
class Frame:
    """One picture with its layers."""

    image: np.ndarray  # [S, S, 3] uint8
    labels: np.ndarray  # [S, S] uint8
    head_alpha: np.ndarray  # [S, S] uint8
    torso: np.ndarray  # [S, S, 4] uint8, straight alpha
    behind: np.ndarray  # [S, S, 3] uint8
    vertices: np.ndarray  # [V, 3] of the face, head frame


def identity(seed: int) -> Identity:
    """Mild variation; seed 0 is the one in the README."""
    rng = np.random.default_rng([seed, 11])
    skins = np.array(
        [
            [0.905, 0.735, 0.645],
            [0.890, 0.705, 0.600],
            [0.840, 0.640, 0.520],
            [0.720, 0.520, 0.405],
            [0.560, 0.390, 0.300],
        ]
    )
    hairs = np.array(
        [[0.36, 0.235, 0.155], [0.20, 0.145, 0.115], [0.50, 0.36, 0.22], [0.13, 0.115, 0.11], [0.42, 0.22, 0.13]]
    )
    irises = np.array(
        [[0.36, 0.43, 0.40], [0.36, 0.25, 0.16], [0.40, 0.48, 0.55], [0.30, 0.21, 0.14], [0.40, 0.38, 0.24]]
    )
    cloths = np.array(
        [[0.20, 0.36, 0.42], [0.52, 0.20, 0.22], [0.24, 0.27, 0.38], [0.62, 0.58, 0.50], [0.26, 0.38, 0.30]]
    )
    tone, dark, eyes, dress = (0, 0, 0, 0) if seed == 0 else rng.integers(0, 5, 4)
    if tone >= 3:
        dark, eyes = (1, 3)[rng.integers(2)], (1, 3)[rng.integers(2)]
    style = "long" if seed % 2 == 0 else "short"
    skin = skins[tone] * (1 + (0 if seed == 0 else rng.normal(0, 0.012)))
    hair_color = hairs[dark]
    lips = skin * ([0.865, 0.655, 0.695] if style == "long" else [0.91, 0.77, 0.78])
    looks = paint.Looks(
        skin, rng.uniform(0.35, 0.6), int(rng.integers(20, 170)), np.asarray(lips), hair_color * 0.70, irises[eyes],
        hair_color, cloths[dress], 0.0 if style == "long" else rng.uniform(0.12, 0.30),
    )  # fmt: skip
    return Identity(
        looks, style, hair_length=rng.uniform(-0.140, -0.126), part=rng.uniform(-0.022, -0.012),
        volume=rng.uniform(0.008, 0.016), neck_depth=rng.uniform(0.018, 0.034), neck_pointed=rng.uniform(0, 1),
        shape=np.zeros(9) if seed == 0 else np.clip(rng.normal(0, 0.6, 9), -1, 1),
    )  # fmt: skip


def warp(points: np.ndarray, shape: np.ndarray, male: float) -> np.ndarray:
    """This person's face [V, 3] from the mean one (y from the eyes); the eyes and their lids stay."""
    p = points.copy()
    jaw, chin, nose_wide, nose_long, nose_tip, cheek, brow, full, mouth = shape
    q = np.concatenate([np.abs(p[:, :1]), p[:, 1:]], axis=1)
    side = np.tanh(p[:, 0] / 0.004)
    move = np.zeros_like(p)
    low = smoothstep(-0.045, -0.095, p[:, 1])
    move[:, 0] += p[:, 0] * (0.050 * jaw + 0.055 * male) * low
    move[:, 1] -= (0.0030 * chin + 0.0030 * male) * smoothstep(-0.082, -0.108, p[:, 1])
    wings = bump(q, (0.010, -0.040, 0.098), (0.010, 0.010, 0.02))
    move[:, 0] += p[:, 0] * (0.12 * nose_wide + 0.10 * male) * wings
    ridge = bump(q, (0, -0.028, 0.105), (0.009, 0.016, 0.02))
    move[:, 2] += (0.0022 * nose_tip + 0.0012 * male) * ridge
    move[:, 1] -= 0.0018 * nose_long * bump(q, (0, -0.040, 0.105), (0.014, 0.012, 0.03))
    round_ = bump(q, (0.044, -0.040, 0.065), (0.016, 0.022, 0.03))
    move[:, 0] += side * 0.0028 * cheek * round_
    move[:, 2] += 0.0018 * cheek * round_
    ridge = bump(q, (0.026, 0.020, 0.088), (0.020, 0.006, 0.02))
    move[:, 2] += (0.0008 * brow + 0.0018 * male) * ridge
    lips = bump(q, (0, MOUTH_Y, 0.09), (0.022, 0.008, 0.03))
    move[:, 1] += (p[:, 1] - MOUTH_Y) * (0.14 * full - 0.16 * male) * lips
    move[:, 0] += p[:, 0] * 0.045 * mouth * bump(q, (0.02, MOUTH_Y, 0.085), (0.016, 0.014, 0.03))
    eye = np.hypot((q[:, 0] - surface.EYE_X) / 0.024, q[:, 1] / 0.015)
    return p + move * smoothstep(0.8, 1.3, eye)[:, None]


class Person:
    """A synthetic speaker, ready to be drawn at one size.

    Args:
        seed: who it is. size: side of its pictures, px.
    """

    def __init__(self, seed: int = 0, size: int = 256) -> None:
        self.identity, self.size = identity(seed), size
        rng = np.random.default_rng([seed, 12])
        self.camera = Camera(FOCAL * size, FOCAL * size, size / 2, size / 2, size, size)
        male = 0.0 if self.identity.style == "long" else 1.0
        self.face = Face(lambda p: warp(p, self.identity.shape, male))
        plate = paint.room(rng, size)
        self.plate = np.rint(plate * 255).astype(np.uint8)
        self._parts = self._make_parts(rng, male)
        self._assemble()
        self._occlude()

    def _make_parts(self, rng: np.random.Generator, male: float) -> list[Part]:
        who, size = self.identity, self.size
        looks, t = who.looks, self.face.topology
        skin = Part("face", self.face.neutral, self.face.faces, FACE, sheen=(0.075, 9))
        skin.uv, skin.texture = paint.chart_uv(t.chart), paint.face_texture(looks, rng, size)
        skin.tint = np.ones((len(t.rest), 3)) - t.wet[:, None] * np.array([0.25, 0.45, 0.42])
        parts = [skin]
        iris = body.eye_texture(looks.iris, rng, max(96, size // 2))
        self._eye_angles = []
        for eye in (0, 1):
            ball, angles = body.eyeball(eye)
            ball.uv, ball.texture = np.zeros((len(angles), 2)), iris
            self._eye_angles.append(angles)
            parts += [ball, body.glint(eye, 0.00105), body.glint(eye + 2, 0.0006)]
        parts += self._lashes(rng)
        parts += [body.teeth(True), body.teeth(False), body.tongue(), body.cavity()]
        linear = looks.skin**2
        if who.style == "short":  # long hair hides them
            parts += [body.ear(-1, linear), body.ear(1, linear)]
        strands = [paint.strand_texture(rng, True, max(32, size // 4)) for _ in range(2)]
        if who.style == "long":
            parts += hair.long_hair(looks.hair, strands, rng, length=who.hair_length, part=who.part)
        else:
            parts += hair.short_hair(looks.hair, strands, rng, part=who.part, volume=who.volume)
        self.head_parts = len(parts)
        parts.append(body.neck(paint.plain_skin(looks, rng, size)))
        parts += body.garment(who.neck_depth, who.neck_pointed, paint.knit(looks, rng, size), rng)
        return parts

    def _lashes(self, rng: np.random.Generator) -> list[Part]:
        """Spikes on the upper lids; `_move` places them."""
        parts, self._lash_roots = [], []
        for eye, name in enumerate(("left", "right")):
            row = self.face.topology.rims[f"lid_{name}_upper"]
            count = 46
            t = np.linspace(1.5, len(row) - 2.2, count) + rng.uniform(-0.2, 0.2, count)
            low = np.clip(t.astype(int), 0, len(row) - 2)
            outer = t / (len(row) - 1)
            length = (0.0022 + 0.0032 * outer + rng.uniform(-0.0005, 0.0005, count)) * np.minimum(1, 6 * (1.02 - outer))
            fan = (outer - 0.42) * 1.2 + rng.normal(0, 0.10, count)
            self._lash_roots.append((row[low], row[low + 1], t - low, length, fan * (1 if eye else -1)))
            faces = np.arange(3 * count).reshape(-1, 3)
            tint = np.broadcast_to(self.identity.looks.brows**2 * 0.35, (3 * count, 3))
            parts.append(Part(f"lashes{eye}", np.zeros((3 * count, 3)), faces, FACE, tint=tint))
        return parts

    def _assemble(self) -> None:
        """One vertex array, one face list, one texture for all parts."""
        self._slices, start, faces, labels = {}, 0, [], []
        for part in self._parts:
            self._slices[part.name] = slice(start, start + len(part.vertices))
            faces.append(part.faces + start)
            labels.append(np.full(len(part.faces), part.label, np.uint8))
            start += len(part.vertices)
        self._faces, self._labels = np.concatenate(faces).astype(np.int32), np.concatenate(labels)
        torso_from = self._slices["neck"].start
        self._torso = slice(torso_from, start)
        is_torso = self._faces[:, 0] >= torso_from
        self._torso_faces, self._torso_labels = self._faces[is_torso] - torso_from, self._labels[is_torso]
        self._cutout = np.concatenate([np.full(len(p.faces), p.cutout, np.uint8) for p in self._parts])
        self._texture, self._uv, self._texture_box = _atlas(self._parts)
        self._local = np.concatenate([p.vertices for p in self._parts]).astype(np.float32)
        self._tint = np.concatenate(
            [np.ones_like(p.vertices) if p.tint is None else p.tint for p in self._parts]
        ).astype(np.float32)
        normals = [_outward(p) if p.normals is None else p.normals for p in self._parts]
        self._normals = np.concatenate(normals).astype(np.float32)
        strands = [p for p in self._parts if p.hair is not None]  # they stand together
        self._hair = slice(self._slices[strands[0].name].start, self._slices[strands[-1].name].stop)
        tangents = np.zeros_like(self._local)
        for p in strands:
            tangents[self._slices[p.name]] = p.hair
        self._tangents = tangents[self._hair]
        self._sheen = {p.name: p.sheen for p in self._parts if p.sheen[0] > 0}
        self._open = np.ones(len(self._local), np.float32)
        t = self.face.topology
        moist = 0.16 * np.clip(t.lip + 0.5 * t.wet, 0, 1).astype(np.float32)
        lips = np.flatnonzero(moist)
        self._moist = lips + self._slices["face"].start, moist[lips, None]

    # Light

    def _occlude(self, rays: int = 44, side: int = 256) -> None:
        """How much of the light reaches each vertex: the person is drawn from many directions, as light sees it."""
        au = np.zeros(17)
        au[AU_NAMES.index("AU25")], au[AU_NAMES.index("AU26")] = 3.0, 1.5
        rest = State(au, rest_pose(), rest_pose())
        points = self._move(rest)
        points = points @ _FLIP - np.array([0, 0, -DISTANCE], np.float32)
        normals = self._normals
        i = np.arange(rays) + 0.5
        up, turn = 1 - 1.25 * i / rays, np.pi * (1 + 5**0.5) * i  # down to a little below the horizon
        ring = np.sqrt(1 - up**2)
        directions = np.stack([ring * np.sin(turn), up, ring * np.cos(turn)], 1).astype(np.float32)
        weight = 0.5 + 0.5 * up + 2.6 * np.exp(((directions @ _LIGHTS[0]) - 1) / 0.045)
        solid = np.isin(self._labels, (FACE, HAIR, NECK, TORSO))
        total, seen = np.full(len(points), 1e-6, np.float32), np.full(len(points), 1e-6, np.float32)
        far = 4.0
        camera = Camera(far * side / 0.62, far * side / 0.62, side / 2, side / 2, side, side)
        for direction, share in zip(directions, weight):
            x = np.cross([0, 1, 0], direction)
            x /= np.linalg.norm(x)
            axes = np.stack([x, -np.cross(direction, x), -direction]).astype(np.float32)
            q = points @ axes.T
            q[:, 2] += far
            depth = render_mesh(q, self._faces[solid], camera, samples=1).depth
            column = np.clip((q[:, 0] / q[:, 2] * camera.fx + camera.cx).astype(int), 0, side - 1)
            row = np.clip((q[:, 1] / q[:, 2] * camera.fy + camera.cy).astype(int), 0, side - 1)
            lit = (depth[row, column] == 0) | (q[:, 2] < depth[row, column] + 0.0040)
            facing = share * np.clip(normals @ direction + 0.08, 0, None)
            total += facing
            seen += facing * lit
        open_ = np.clip(seen / total, 0, 1)
        face = self._slices["face"]
        smooth = self.face.topology.accumulate
        for _ in range(2):  # evens out what so few directions leave
            mean = smooth.T @ open_[face] / 3
            open_[face] = smooth @ mean / np.maximum(np.asarray(smooth.sum(1)).ravel(), 1)
        open_ = 0.22 + 0.78 * open_
        for part in self._parts:
            where = self._slices[part.name]
            if part.label == MOUTH or part.name.startswith(("lashes", "glint")):
                open_[where] = 1
            elif part.name.startswith("eye"):
                open_[where] = 0.62 + 0.38 * open_[where]
        self._open = open_.astype(np.float32)

    def _shade(self, state: State, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Light [V, 3] on every vertex and gloss [V, 3] off it."""
        face = self._slices["face"]
        head_to_room = (_FLIP @ state.head_pose[:3, :3]).astype(np.float32)
        torso_to_room = (_FLIP @ state.torso_pose[:3, :3]).astype(np.float32)
        self._normals[face] = self.face.normals(self._local[face])
        light = np.empty_like(self._local)
        gloss = np.zeros_like(self._local)
        head = slice(0, self._torso.start)
        for where, to_room in ((head, head_to_room), (self._torso, torso_to_room)):
            lights, up = _LIGHTS @ to_room, to_room[1]
            n = self._normals[where]
            facing = n @ lights.T
            sky = (0.5 + 0.5 * (n @ up))[:, None]
            ambient = _GROUND + sky * (_SKY - _GROUND)
            skin_end = face.stop if where is head else self._slices["neck"].stop - where.start
            skin, rest = light[where][:skin_end], light[where][skin_end:]
            np.matmul(np.maximum(0.92 * facing[skin_end:] + 0.08, 0), _COLORS, out=rest)
            for c, w in enumerate(_SKIN_WRAP):
                skin[:, c] = np.maximum(facing[:skin_end] / (1 + w) + w / (1 + w), 0) @ _COLORS[:, c]
            light[where] += ambient
        # Highlights: half-way vectors between the lights and the viewer.
        view = np.array([0, 0, 1], np.float32)
        half = _LIGHTS[:2] + view
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        for name, (strength, sharp) in self._sheen.items():
            where = self._slices[name]
            to_room = torso_to_room if where.start >= self._torso.start else head_to_room
            gloss[where] = strength * (_power(self._normals[where] @ (half @ to_room).T, sharp) @ _COLORS[:2])
        lips, strength = self._moist
        gloss[lips] += strength * (_power(self._normals[lips] @ (half @ head_to_room).T, 26) @ _COLORS[:2])
        gloss *= self._open[:, None] ** 2
        # Strands shine where they lie across the half-way vector (Kajiya and Kay, 1989).
        along = self._tangents @ (half[0] @ head_to_room)
        broad = _power(1 - along * along, 8)
        sharp = _power(broad, 4)
        lit = self._open[self._hair] * np.clip(self._normals[self._hair] @ (_LIGHTS[0] @ head_to_room) + 0.25, 0, 1)
        tone = self._tint[self._hair]
        gloss[self._hair] = ((0.085 * sharp + 0.03 * broad) * lit)[:, None] * (0.25 + tone / (tone.max() + 1e-6))
        light *= self._open[:, None]
        self._shade_inside(state, light, gloss)
        light *= self._tint
        return light, gloss

    def _shade_inside(self, state: State, light: np.ndarray, gloss: np.ndarray) -> None:
        """Shadows that move: of the lids on the eyes, of the lips on teeth and tongue."""
        au = dict(zip(AU_NAMES, state.action_units / 5))
        t, vertices = self.face.topology, self._local
        up_level = np.clip(au["AU45"] + 0.16 * au["AU07"] - 0.30 * au["AU05"], -0.4, 1)
        for eye in (0, 1):
            where = self._slices[f"eye{eye}"]
            p = vertices[where] - LIFT
            u = np.clip((np.abs(p[:, 0]) - surface.EYE_X) / EYE_HALF, -1, 1)
            top = lid_margin(u, True)
            top = top + up_level * (lid_meeting(u) - top)
            shadow = 0.42 + 0.58 * smoothstep(-0.0002, 0.0042, top - p[:, 1])
            shadow *= 1 - 0.30 * np.abs(u) ** 4
            light[where] *= shadow[:, None].astype(np.float32)
            gloss[where] *= shadow[:, None].astype(np.float32)
        face = vertices[self._slices["face"]]
        middle = len(t.rims["lip_upper_inner"]) // 2
        lip = face[t.rims["lip_upper_inner"]]
        gap = lip[middle, 1] - face[t.rims["lip_lower_inner"][middle], 1]
        entering = 0.40 + 0.50 * smoothstep(0.001, 0.014, gap)
        for name in ("teeth_upper", "teeth_lower", "tongue", "cavity"):
            where = self._slices[name]
            p = vertices[where]
            under = np.interp(p[:, 0], lip[:, 0], lip[:, 1]) - p[:, 1]
            shadow = entering * (0.78 + 0.22 * smoothstep(-0.001, 0.0040, under))
            if name != "teeth_upper":  # what lies deeper is darker
                shadow *= 0.80
            light[where] = light[where] * 0.55 + np.array(
                [0.46, 0.41, 0.37], np.float32
            )  # bounced light fills the mouth
            light[where] *= shadow[:, None].astype(np.float32)
            gloss[where] *= shadow[:, None].astype(np.float32)

    # Motion

    def _move(self, state: State) -> np.ndarray:
        """Every vertex in camera space [V, 3]; `_local` keeps them in their carrier's frame."""
        au = np.asarray(state.action_units, np.float32)
        local, rest = self._local, self._rest()
        face = self._slices["face"]
        local[face] = self.face.pose(au)
        turn, pivot = self.face.jaw_rotation(au), self.face.pivot
        for part in self._parts:
            where = self._slices[part.name]
            if part.carrier == "jaw":
                p = rest[part.name]
                if part.name == "tongue" and state.tongue > 0:
                    tip = smoothstep(0.055, 0.081, p[:, 2])
                    p = p + (state.tongue * tip)[:, None] * np.array([0, 0.0085, 0.0045])
                local[where] = (p - pivot) @ turn.T + pivot
            elif part.carrier == "jaw_half":
                p = rest[part.name]
                moved = (p - pivot) @ turn.T + pivot
                share = smoothstep(0.012, -0.012, p[:, 1] - body.MOUTH_LEVEL)[:, None]
                local[where] = p + share * (moved - p)
        self._move_eyes(state, au)
        out = np.empty_like(local)
        head = slice(0, self._torso.start)
        out[head] = local[head] @ state.head_pose[:3, :3].T.astype(np.float32) + state.head_pose[:3, 3].astype(
            np.float32
        )
        out[self._torso] = local[self._torso] @ state.torso_pose[:3, :3].T.astype(np.float32) + state.torso_pose[
            :3, 3
        ].astype(np.float32)
        self._bend_neck(state, out)
        return out

    def _rest(self) -> dict[str, np.ndarray]:
        if not hasattr(self, "_rest_of"):
            self._rest_of = {p.name: p.vertices.astype(np.float32) for p in self._parts if p.carrier.startswith("jaw")}
        return self._rest_of

    def _bend_neck(self, state: State, out: np.ndarray) -> None:
        """The neck's upper end goes with the head."""
        where = self._slices["neck"]
        p = self._local[where]
        share = (0.85 * smoothstep(-0.125, -0.045, p[:, 1]))[:, None].astype(np.float32)
        with_head = p @ state.head_pose[:3, :3].T.astype(np.float32) + state.head_pose[:3, 3].astype(np.float32)
        out[where] += share * (with_head - out[where])

    def _move_eyes(self, state: State, au: np.ndarray) -> None:
        local = self._local
        face = local[self._slices["face"]]
        blink = float(au[AU_NAMES.index("AU45")]) / 5
        lights = _LIGHTS @ (_FLIP @ state.head_pose[:3, :3]).astype(np.float32)
        view = np.array([0, 0, 1]) @ (_FLIP @ state.head_pose[:3, :3])
        for eye in (0, 1):
            x0, y0, w, h = self._texture_box[f"eye{eye}"]
            uv = (self._eye_angles[eye] - state.gaze) * (0.5, -0.5) + 0.5
            self._uv[self._slices[f"eye{eye}"]] = np.clip(uv, 0.004, 0.996) * (w, h) + (x0, y0)
            gaze = body.eye_point(eye, np.asarray(state.gaze, float)) - body.EYES[eye]
            for k, light in ((eye, lights[0]), (eye + 2, lights[1])):
                half = light + view
                half /= np.linalg.norm(half)
                at = body.EYES[eye] + gaze * 0.42 + half * 0.0080
                x = np.array([half[2], 0, -half[0]]) / np.hypot(half[2], half[0])  # np.cross checks more than it does
                y = np.array([half[1] * x[2], half[2] * x[0] - half[0] * x[2], -half[1] * x[0]])
                disc = self._glint_rest(k) @ np.stack([x, y, half])
                local[self._slices[f"glint{k}"]] = at + disc
            first, second, t, length, fan = self._lash_roots[eye]
            root = face[first] + t[:, None] * (face[second] - face[first])
            rise = 0.62 - 1.25 * blink
            way = np.stack([fan, np.full_like(fan, rise), np.full_like(fan, 0.95)], 1)
            way /= np.linalg.norm(way, axis=1, keepdims=True)
            width = np.array([0.00026, 0, 0])
            tip = root + way * length[:, None] + np.array([0, 0.0004 * (1 - blink), 0])
            spikes = np.stack([root - width, root + width, tip], 1).reshape(-1, 3) + np.array([0, 0, 0.0001])
            local[self._slices[f"lashes{eye}"]] = spikes

    def _glint_rest(self, k: int) -> np.ndarray:
        return next(p.vertices for p in self._parts if p.name == f"glint{k}")

    # Pictures

    def twin(self) -> Person:
        """The same person once more, to be drawn in another thread at the same time."""
        other = copy.copy(self)
        other._local, other._normals, other._uv = self._local.copy(), self._normals.copy(), self._uv.copy()
        return other

    def draw(self, state: State, samples: int = 2) -> Frame:
        """One frame; layers compose to the image."""
        points = self._move(state)
        light, gloss = self._shade(state, points)
        texture, uv = self._texture, self._uv
        torso = render_mesh(
            points[self._torso], self._torso_faces, self.camera, light=light[self._torso], gloss=gloss[self._torso],
            uv=uv[self._torso], texture=texture, cutout=self._cutout[-len(self._torso_faces) :],
            face_labels=self._torso_labels, samples=samples,
        )  # fmt: skip
        head = render_mesh(
            points, self._faces, self.camera, light=light, gloss=gloss, uv=uv, texture=texture, cutout=self._cutout,
            face_labels=self._labels, keep=HEAD_LABELS, samples=samples,
        )  # fmt: skip
        straight = np.rint(torso.color * (255 / np.maximum(torso.alpha, 1e-6))[..., None]).astype(np.uint8)
        torso_alpha = np.rint(torso.alpha * 255).astype(np.uint8)
        behind = media.over(straight, self.plate, torso_alpha)
        image = behind * np.repeat(1 - head.alpha, 3, axis=1).reshape(behind.shape)
        image += head.color * 255
        return Frame(
            np.rint(image, out=image).astype(np.uint8), head.labels, np.rint(head.alpha * 255).astype(np.uint8),
            np.dstack([straight, torso_alpha]), behind, self._local[self._slices["face"]].copy(),
        )  # fmt: skip


def _power(x: np.ndarray, n: int) -> np.ndarray:
    """x within [0, 1] to the n-th power by squaring, for n of 1 or more: `**` goes through logarithms."""
    square, out = np.clip(x, 0, 1), None
    while n:
        if n & 1:
            out = square if out is None else out * square
        n >>= 1
        square = square * square if n else square
    return out


def rest_pose() -> np.ndarray:
    """A head that looks into the camera [4, 4]."""
    pose = np.eye(4)
    pose[:3, :3] = _FLIP
    pose[:3, 3] = (0, -0.003, DISTANCE)
    return pose


def _outward(part: Part) -> np.ndarray:
    """Normals that point away from the part's middle, whatever way its faces turn."""
    n = vertex_normals(part.vertices, part.faces)
    away = part.vertices - part.vertices.mean(0)
    return -n if (n * away).sum() < 0 else n


def _atlas(parts: list[Part]) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[int, int, int, int]]]:
    """All textures one over another [h, w, 4] uint8, every vertex's texel [V, 2], and each part's box (x, y, w, h)."""
    gutter = 2
    images = {id(p.texture): p.texture for p in parts if p.texture is not None}
    width = max(t.shape[1] for t in images.values()) + 2 * gutter
    rows, boxes, top = [np.full((8, width, 4), 255, np.uint8)], {}, 8
    for key, t in images.items():
        image = np.rint(np.clip(t, 0, 1) * 255).astype(np.uint8)
        if image.shape[2] == 3:
            image = np.concatenate([image, np.full((*image.shape[:2], 1), 255, np.uint8)], axis=2)
        height = image.shape[0]
        right = width - image.shape[1] - gutter
        rows.append(np.pad(image, ((gutter, gutter), (gutter, right), (0, 0)), mode="edge"))
        boxes[key] = (gutter, top + gutter, image.shape[1], height)
        top += height + 2 * gutter
    uv, named = [], {}
    for p in parts:
        if p.texture is None:
            uv.append(np.full((len(p.vertices), 2), 4.0))
            continue
        x, y, w, h = named[p.name] = boxes[id(p.texture)]
        uv.append(p.uv * (w, h) + (x, y))
    return np.concatenate(rows), np.concatenate(uv).astype(np.float32), named
