"""A portrait as a head that moves: landmarks, the ground around them, triangles, a displacement for each motion.

A morphable head (`faces.heads`: ICT-FaceKit where it is here, else our own) is fitted to the landmarks. It tells how
deep the head is, beyond the landmarks too, and how skin moves when a jaw opens, lips are rounded, brows rise: its
displacements are carried over vertex by vertex and scaled so that one unit of a motion does what the motion says.
Made by hand are what a displacement of skin cannot promise on every face: lips that meet exactly, all along (`sealed`);
the portrait's own gap that closes; the lower lip under the teeth; lids, which are painted (`lids`).

Coordinates:
    px of the crop, landmarks' z in px too (smaller is nearer).
    Camera: metres, OpenCV axes; at rest every vertex projects onto its own pixel, so that the portrait is reproduced.
    Head: metres from the middle of the mouth; x to the face's left (image right), y down the face, z into it.
A face is taken to be 0.14 m wide; so all motions are metres on every face.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.spatial import Delaunay

from vocalface.faces.heads import head
from vocalface.faces.portrait import Fitted, fit
from vocalface.observe.indices import EARS, FACE_OVAL
from vocalface.sadtalker import carry
from vocalface.sadtalker.carry import depth, even, forward, gentle, relief, rimmed, smoothstep, within_oval
from vocalface.sadtalker.motion import Pose
from vocalface.types import Camera

FACE_WIDTH = 0.14  # m, tragus to tragus
GREY = np.array([0.3, 0.59, 0.11], np.float32)  # brightness of RGB
FOCAL = 2.5  # image sides
GRID = 20  # px at 512 between vertices around the face
LIP_UPPER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LIP_LOWER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
EYES = (
    ([33, 246, 161, 160, 159, 158, 157, 173, 133], [33, 7, 163, 144, 145, 153, 154, 155, 133]),
    ([362, 398, 384, 385, 386, 387, 388, 466, 263], [362, 382, 381, 380, 374, 373, 390, 249, 263]),
)  # upper and lower lid, each from the image's left
BROWS = ([70, 63, 105, 66, 107], [336, 296, 334, 293, 300])
LANDMARKS = 468  # the irises' ten are not part of the mesh
PARTED = 0.0025  # m: lips further apart than this show what lies behind them in the portrait
OPEN_EYE = 0.14  # height over width: a narrower eye counts as closed and does not blink
EYE_DEPTH = 0.001  # m, behind the lids; deeper, a turned eye shows the lashes twice
LASH = 0.0035  # m, strip over the lid's edge that closes with it unstretched
CROWN = 0.085  # m from the forehead's landmark to the top of the hair
CLOSING = ((0.35, 0.85), (0.7, 0.62), (0.93, 0.3), (1.0, 0.05))  # shares of the way up, and of a crown's width there
ASIDE = 0.38  # sides of the crop that a person goes on beyond its left and right: no allowed turn bares the end
MIRRORED = 0.12  # of the way from the border to the face
STRETCH = 0.15  # share of a blink that the skin about the eye makes; the lid itself is painted (`lids`)
ROUNDED = 0.005  # m that the corners of rounded lips come in, each; of mouthPucker at 1 it is 0.0046
ARCH = 0.9  # an opened mouth: 0.5 is an ellipse, whose ends are boxes on lips of eleven points; 1 a parabola
STEEPEST, FLATTENED = 3.0, 1.0  # px of depth to one px across: of a head that looks ahead; of a far turned one's rim
RIM = (0.004, 0.025)  # m inside the face's oval: so far its rim is flattened, here nose and eyes keep their depth
MOUTH_WIDE = 0.049  # m, of an adult's mouth at rest on a face that is FACE_WIDTH wide
SIZES = (0.7, 1.15)  # of a mouth, to an adult's
FAR_TURN = np.radians([15.0, 32.0])  # between these the one becomes the other
BOTTOM = np.array([False, False, False, True])
NEAR, FAR = (1.45, 2.4), (2.4, 3.6)  # half widths of the face: so far things turn with the head, there no more
FIELDS = (
    "jaw", "part", "close", "width", "narrow", "round", "tuck", "upper", "brow", "scowl", "inner", "smile", "frown",
    "cheek", "sneer", "blink", "flat",
)  # fmt: skip


@dataclass(frozen=True)
class Rig:
    """A portrait ready to move. V vertices, of which the last belong to eyes and mouth behind the skin."""

    size: int
    camera: Camera
    rest: np.ndarray  # [V, 3] head coordinates
    uv: np.ndarray  # [V, 2] px of the portrait
    faces: np.ndarray  # [F, 3]
    fields: np.ndarray  # [len(FIELDS), V * 3] metres for one unit of each motion
    follow: np.ndarray  # [V, 1] how far a vertex goes with the head
    pivot: np.ndarray  # [3] base of the skull
    axes: np.ndarray  # [3, 3] head to camera
    origin: np.ndarray  # [3] camera
    mouth: Mouth
    seam: np.ndarray  # vertices behind the lower lip where the portrait shows teeth; they lie in shadow
    copies: np.ndarray  # [V] the vertex of the skin that each is, or lies behind
    fitted: Fitted  # the morphable head

    def cut_off(self, cut: np.ndarray) -> Rig:
        """The rig of a person before a ground that is drawn apart: hair turns with the head however far it hangs, and
        only the crop's bottom rests, where the person reaches it (`cut` [4] bool: left, top, right, bottom).
        """
        skin = self.copies.max() + 1
        follow = following(self.uv[:skin], self.axes, self.size, cut)
        return replace(self, follow=follow[self.copies, None].astype(np.float32))

    def amounts(self, pose: Pose) -> np.ndarray:
        """[len(FIELDS)] of a pose."""
        part = close = 0.0
        if pose.aperture is not None:
            wide = self.mouth.gap
            close = 1 - min(pose.aperture, wide) / wide if wide > 1e-5 else 1.0
            part = max(pose.aperture - wide, 0.0) - pose.jaw
        turn = float(np.hypot(*pose.angles[:2]))
        return np.array(
            [
                pose.jaw, part, close, max(pose.width, 0.0), max(-pose.width, 0.0), pose.round, pose.tuck, pose.upper,
                max(pose.brow, 0.0), max(-pose.brow, 0.0), pose.inner, pose.smile, pose.frown, pose.cheek, pose.sneer,
                STRETCH * pose.blink, smoothstep(*FAR_TURN, np.float64(turn)),
            ],
            np.float32,
        )  # fmt: skip

    def deform(self, pose: Pose) -> np.ndarray:
        """Vertices [V, 3] in camera coordinates."""
        local = self.rest + (self.amounts(pose) @ self.fields).reshape(-1, 3)
        return self.posed(local, pose, self.follow)

    def posed(self, local: np.ndarray, pose: Pose, follow: np.ndarray | None = None) -> np.ndarray:
        """Head coordinates [N, 3] turned with the head, to camera coordinates; all of them wholly without `follow`."""
        turn, shift = rotation(*pose.angles), np.array([*pose.shift, 0.0])
        if follow is None:  # in one step, in their own precision
            there = self.axes @ (self.pivot + shift - turn @ self.pivot) + self.origin
            return (local @ (self.axes @ turn).T.astype(local.dtype) + there.astype(local.dtype)).astype(np.float32)
        turned = (local - self.pivot) @ turn.T + self.pivot + shift
        local = local + follow * (turned - local)
        return (local @ self.axes.T + self.origin).astype(np.float32)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera coordinates [N, 3] -> px [N, 2]."""
        c = self.camera
        return points[:, :2] / points[:, 2:] * (c.fx, c.fy) + (c.cx, c.cy)


@dataclass(frozen=True)
class Mouth:
    """The lips at rest, head coordinates."""

    left: float  # x of the corners
    right: float
    x: np.ndarray  # [11] along the inner lips
    upper: np.ndarray  # [11] y
    lower: np.ndarray  # [11] y
    depth: float  # z of the lips' contact
    gap: float  # m, largest
    size: float  # of its width at rest, to an adult's

    def places(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        """u (-1 and 1 at the corners), y over the upper lip's edge, y under the lower lip's, gap at x."""
        u = (points[:, 0] - (self.left + self.right) / 2) / ((self.right - self.left) / 2)
        upper, lower = np.interp(points[:, 0], self.x, self.upper), np.interp(points[:, 0], self.x, self.lower)
        return u, upper - points[:, 1], points[:, 1] - lower, lower - upper


def window(px: np.ndarray, camera: Camera, margin: float) -> tuple[int, int, Camera] | None:
    """A part of the view around points [N, 2]: its corner and its own camera; None when it is out of sight."""
    low = np.maximum(np.floor(px.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(px.max(0) + margin), (camera.width, camera.height)).astype(int)
    if (high <= low).any():
        return None
    (x, y), (width, height) = low.tolist(), (high - low).tolist()
    return x, y, Camera(camera.fx, camera.fy, camera.cx - x, camera.cy - y, width, height)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """[3, 3] in head axes: yaw turns the face to the image's right, pitch down, roll clockwise."""
    (sy, sp, sr), (cy, cp, cr) = np.sin([yaw, pitch, roll]), np.cos([yaw, pitch, roll])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def hump(x: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((x / width) ** 2))


# ---------------------------------------------------------------------------------------------------- building
def measure(landmarks: np.ndarray, size: int, model: str = "auto") -> Fitted:
    """The morphable head under the landmarks [478, 3] px of a square crop; `model` as in `faces.heads.head`."""
    return fit(head(model), landmarks, view(size))


def view(size: int) -> Camera:
    return Camera(FOCAL * size, FOCAL * size, size / 2, size / 2, size, size)


def build(landmarks: np.ndarray, size: int, model: str = "auto") -> Rig:
    """The rig of a face in a square crop, before a ground that moves with it (see `Rig.cut_off`).

    Args:
        landmarks: [478, 3] px; size: side of the crop, px; model: see `faces.heads.head`.
    """
    camera, fitted = view(size), measure(landmarks, size, model)
    points = landmarks[:LANDMARKS].astype(np.float64)
    per_metre = px_per_metre(points)
    points[:, 2] = depth(points, fitted, per_metre)
    across = points[263] - points[33]
    x_axis = across / np.linalg.norm(across)
    z_axis = np.cross(x_axis, points[152] - points[10])
    z_axis /= np.linalg.norm(z_axis)
    axes = np.stack([x_axis, np.cross(z_axis, x_axis), z_axis], axis=1)

    near = camera.fx / per_metre
    beside, seen = around(points, size, per_metre)
    on_head = carry.places(fitted, points[:, :2], beside, per_metre)
    deep = on_head(carry.depths(fitted, points[:, 2], per_metre)[:, None])
    points = np.concatenate([points, np.concatenate([beside, deep], axis=1)])
    # A nose may hide the cheek behind it; a rim that folds would cut the contour to steps.
    slope = FLATTENED + (STEEPEST - FLATTENED) * smoothstep(*RIM, within_oval(points[:, :2], per_metre))
    flat = forward(np.concatenate([relief(points[:LANDMARKS], per_metre), points[LANDMARKS:]]), slope)
    points[:, 2] = rimmed(gentle(points, STEEPEST), points[:, :2], per_metre)
    flat += points[[13, 14], 2].mean() - flat[[13, 14]].mean()  # about the mouth, whose inside lies behind it

    uv = np.concatenate([points[:LANDMARKS, :2], seen])

    def lift(px: np.ndarray) -> np.ndarray:
        z = near + px[:, 2:] / per_metre
        return np.concatenate([(px[:, :2] - size / 2) * z / camera.fx, z], axis=1)

    world = lift(points)
    origin = world[[13, 14]].mean(0)
    local = (world - origin) @ axes
    mouth = lips(local, mouth_size(points, fitted, per_metre))
    border = np.minimum(points[:, :2], size - points[:, :2]).min(1) / size
    moves = fitted.moves() @ axes
    moves = even(np.concatenate([moves[:, :LANDMARKS], on_head(moves)], axis=1), points[:, :2], per_metre)
    fields = motions(local, mouth, dict(zip(fitted.head.expressions, moves))) * smoothstep(0, 0.04, border)[:, None]
    fields[FIELDS.index("flat")] = (lift(np.column_stack([points[:, :2], flat])) - world) @ axes
    follow = following(points[:, :2], axes, size, None)

    chart = points[:, :2].copy()  # the mouth stands open in it, so that triangles do not bridge the lips
    chart += (fields[FIELDS.index("part")] * 0.02 @ axes.T)[:, :2] * per_metre
    triangles = Delaunay(chart).simplices

    skin = np.ones(len(triangles), bool)
    total, behind, extra = len(points), [], []
    for rim, ring, sunk in holes(local):
        inside = np.isin(triangles, rim).all(1)
        skin &= ~inside
        # What lies behind an eye is joined to the skin around it and to the corners, which both lids have: so nothing
        # is seen past it, however far the head turns.
        loose = [i for i in rim if rim.count(i) == 1]
        taken = triangles[np.isin(triangles, loose).any(1)] if ring else triangles[inside]
        used = np.intersect1d(taken, loose)
        renamed = np.arange(len(points))
        renamed[used] = np.arange(len(used)) + total
        extra.append((used, sunk))
        behind.append(renamed[taken])
        total += len(used)
    for k, (used, sunk) in enumerate(extra):
        place = points[used].copy()
        if k == len(extra) - 1 and mouth.gap > PARTED:  # teeth go on under the upper lip, so that no slit opens there
            place[np.isin(used, LIP_UPPER[1:-1]), 1] -= 0.0012 * per_metre
        back = lift(place)
        back *= 1 + sunk / back[:, 2:]  # along the ray: it projects where it was
        local = np.concatenate([local, (back - origin) @ axes])
        uv = np.concatenate([uv, place[:, :2]])
        follow = np.concatenate([follow, follow[used]])
        moved = np.zeros((len(FIELDS), len(used), 3))
        if k == len(extra) - 1:
            moved = carried(local, fields, used, mouth)
        moved[FIELDS.index("flat")] = fields[FIELDS.index("flat"), used]
        fields = np.concatenate([fields, moved], axis=1)
    copies = np.concatenate([np.arange(len(follow) - sum(len(u) for u, _ in extra)), *(used for used, _ in extra)])
    seam = np.flatnonzero(np.isin(extra[-1][0], LIP_LOWER[1:-1])) + len(local) - len(extra[-1][0])
    if mouth.gap <= PARTED:
        seam = seam[:0]
    tall = abs(local[152, 1] - local[10, 1])
    pivot = np.array([0.0, local[152, 1] + 0.15 * tall, local[EARS, 2].mean() + 0.01])
    return Rig(
        size, camera, local.astype(np.float32), uv.astype(np.float32),
        np.concatenate([triangles[skin], *behind]).astype(np.int32), fields.reshape(len(FIELDS), -1).astype(np.float32),
        follow[:, None].astype(np.float32), pivot, axes, origin, mouth, seam, copies, fitted,
    )  # fmt: skip


def around(points: np.ndarray, size: int, per_metre: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [N, 2] px beside the landmarks [468, 3], and what they show of the picture [N, 2] px.

    Lash lines, rings about the face, a grid to the border; and beyond it, where the picture is mirrored, for hair that
    it cuts off and that a head which leans brings into sight.
    """
    lashes = points[[i for upper, _ in EYES for i in upper[1:-1]], :2] - (0, LASH * per_metre)
    oval = points[FACE_OVAL]
    centre = oval[:, :2].mean(0)
    rings = [centre + scale * (oval[::step, :2] - centre) for scale, step in ((1.06, 1), (1.14, 1), (1.26, 2))]
    spacing = GRID * size / 512
    line = np.linspace(0, size, round(size / spacing) + 1)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    outer = (centre + 1.26 * (oval[:, :2] - centre)).astype(np.float32).reshape(-1, 1, 2)
    outside = np.array([cv2.pointPolygonTest(outer, (float(x), float(y)), True) for x, y in grid]) < -0.4 * spacing
    edge = (grid == 0).any(1) | (grid == size).any(1)
    rings = np.concatenate(rings)
    rings = rings[((rings > 2) & (rings < size - 2)).all(1)]
    within = np.concatenate([lashes, rings, grid[outside | edge]])
    low, high = np.maximum(oval[:, :2].min(0), 0), np.minimum(oval[:, :2].max(0), size)
    crown = max(CROWN * per_metre - low[1], 0.04 * size)  # so far over the border hair goes on
    beyond, mirrored = [], []
    aside = ASIDE * size
    sides = (1, 0.0, -1, crown, low[1]), (0, 0.0, -1, aside, low[0]), (0, float(size), 1, aside, size - high[0])
    for axis, at, sign, reach, room in sides:
        for far, wide in CLOSING:
            place, shown = np.stack([line, line], 1), np.stack([line, line], 1)
            place[:, axis] = at + sign * far * reach
            shown[:, axis] = at - sign * far * min(reach, MIRRORED * room)  # nothing of the face itself
            if axis == 1:
                place[:, 0] = points[10, 0] + wide * (line - points[10, 0])
            beyond.append(place)
            mirrored.append(shown)
    return np.concatenate([within, *beyond]), np.concatenate([within, *mirrored])


def mouth_size(points: np.ndarray, fitted: Fitted, per_metre: float) -> float:
    """A mouth's width to an adult's; the head says how much wider a smile made it. Who pouts cannot be told from who
    has a small mouth, and portraits seldom pout.
    """
    ends, rest = [61, 291], fitted.head.vertices(fitted.identity)
    own, shaped, neutral = (float(np.linalg.norm(np.subtract(*p[ends]))) for p in (points, fitted.points, rest))
    return float(np.clip(own / per_metre * min(neutral / shaped, 1.0) / MOUTH_WIDE, *SIZES))


def lips(local: np.ndarray, size: float) -> Mouth:
    upper, lower = local[LIP_UPPER], local[LIP_LOWER]
    x = np.maximum.accumulate((upper[:, 0] + lower[:, 0]) / 2)
    depth = float((upper[5, 2] + lower[5, 2]) / 2)
    gap = np.maximum(lower[:, 1] - upper[:, 1], 0)
    return Mouth(float(x[0]), float(x[-1]), x, upper[:, 1], lower[:, 1], depth, float(gap.max()), size)


def px_per_metre(points: np.ndarray) -> float:
    """Of a face's landmarks, px: it is taken to be `FACE_WIDTH` wide."""
    return float(np.linalg.norm(points[454] - points[234])) / FACE_WIDTH


def holes(local: np.ndarray) -> list[tuple[list[int], bool, float]]:
    """Rims of the openings: landmarks, whether the skin around goes behind too, depth in metres. The mouth is last."""
    found = []
    for upper, lower in EYES:
        wide = np.linalg.norm(local[upper[0]] - local[upper[-1]])
        if (local[lower, 1] - local[upper, 1]).max() > OPEN_EYE * wide:
            found.append(([*upper, *lower], True, EYE_DEPTH))
    return [*found, ([*LIP_UPPER, *LIP_LOWER], False, 0.0005)]


def carried(local: np.ndarray, fields: np.ndarray, used: np.ndarray, mouth: Mouth) -> np.ndarray:
    """How what is seen between the lips in the portrait moves: [fields, n, 3].

    Where the lips were closed it is their line, and stays with the upper lip. Where they were open it is teeth: they
    stay with the head, and their lower edge goes a fifth of the way with the jaw, for more would draw them out; only in
    the corners, where there are no teeth, it goes with the lips, lest it stick out when they are drawn together.
    """
    moved = np.zeros((len(FIELDS), len(used), 3))
    parted = mouth.gap > PARTED
    for i, vertex in enumerate(used):
        if vertex in LIP_LOWER[1:-1]:
            twin = LIP_UPPER[LIP_LOWER.index(vertex)]
            moved[:, i] = 0.2 * fields[:, vertex] if parted else fields[:, twin]
        elif not parted or vertex in LIP_UPPER[1:-1]:
            moved[:, i] = fields[:, vertex]  # between the upper lip and its teeth nothing opens
    if parted:
        corner = smoothstep(0.6, 0.95, np.abs(mouth.places(local[used])[0]))[:, None]
        for k, name in enumerate(FIELDS):
            if name in ("round", "width", "narrow"):
                moved[k] = corner * fields[k, used]
            elif name in ("close", "tuck"):
                moved[k] = 0
    return moved


def following(px: np.ndarray, axes: np.ndarray, size: int, cut: np.ndarray | None) -> np.ndarray:
    """How far each vertex goes with the head [V]: hair and ears wholly, neck in part, ground and border not at all."""
    local = px @ axes[:2]  # px along the head's axes, as if all lay in one plane
    top, chin = local[10, 1], local[152, 1]
    half, tall = np.ptp(local[EARS, 0]) / 2, (chin - top) / 2
    x = np.abs(local[:, 0] - local[EARS, 0].mean()) / half
    y = (local[:, 1] - (top + chin) / 2) / tall
    r = np.hypot(x, np.minimum(y, 0))
    weight = 1 - smoothstep(*(NEAR if cut is None else FAR), r)
    weight *= 1 - smoothstep(0.95, 2.1, y)
    border = np.concatenate([px, size - px], axis=1) / size
    if cut is not None:  # what hangs out at the top and the sides goes on there
        border = np.where(cut & BOTTOM, border, 1.0)
    free = smoothstep(0, 0.10, border.min(1))
    weight = weight * free
    weight[:LANDMARKS] = np.minimum(1, free[:LANDMARKS] * 3)
    return weight


# ---------------------------------------------------------------------------------------------------- motions
def motions(p: np.ndarray, mouth: Mouth, shapes: dict[str, np.ndarray]) -> np.ndarray:
    """Displacements [len(FIELDS), V, 3], metres for one unit of each of `FIELDS`.

    Args:
        p: [V, 3] head coordinates; shapes: what each of `faces.heads.SHAPES` does to them [V, 3].
    """
    lip = Lips.of(p, mouth)
    shapes = {name: moved * fading(p)[:, None] for name, moved in shapes.items()}
    out = np.zeros((len(FIELDS), len(p), 3))
    field = dict(zip(FIELDS, out))
    top, low, corners = LIP_UPPER[5], LIP_LOWER[5], [LIP_UPPER[0], LIP_UPPER[-1]]

    def outward(moved: np.ndarray) -> float:
        """Metres by which the corners of the mouth part, each."""
        return float(moved[corners[1], 0] - moved[corners[0], 0]) / 2

    opened = shapes["jawOpen"]
    field["jaw"][:] = lip.sealed(opened / (opened[low, 1] - opened[top, 1]), lip.arch, 0.8)
    below, above = shapes["mouthLowerDown"], shapes["mouthUpperUp"]
    parted = 0.72 * below / below[low, 1] - 0.28 * above / above[top, 1]
    field["part"][:] = lip.sealed(parted, lip.arch, 0.72)
    smile, stretch = shapes["mouthSmile"], shapes["mouthStretch"]
    wide = 0.5 * smile / outward(smile) + 0.5 * stretch / outward(stretch)
    field["width"][:] = lip.sealed(wide, 0.0)
    pucker = shapes["mouthPucker"] / -outward(shapes["mouthPucker"])
    forward = float(pucker[[top, low], 2].mean())
    field["narrow"][:] = lip.sealed(0.5 * pucker * (1, 1, 0.3) - 0.5 * stretch / outward(stretch), 0.0)
    field["round"][:] = lip.sealed(ROUNDED * pucker * (1, 1, min(0.0045 / (-ROUNDED * forward), 1.0)), 0.0)
    raised = 0.0016 * shapes["mouthUpperUp"] / -shapes["mouthUpperUp"][top, 1]
    field["upper"][:] = lip.sealed(raised, 0.0011 * lip.arch)
    brow = [i for row in BROWS for i in row]
    lifted, lowered = shapes["browInnerUp"] + shapes["browOuterUp"], shapes["browDown"]
    field["brow"][:] = lifted / -lifted[brow, 1].mean()
    field["scowl"][:] = lowered / lowered[[66, 107, 296, 336], 1].mean()
    field["inner"][:] = shapes["browInnerUp"] / -shapes["browInnerUp"][[107, 336], 1].mean()
    frown, cheek, sneer = shapes["mouthFrown"], shapes["cheekSquint"], shapes["noseSneer"]
    field["smile"][:] = lip.sealed(0.006 * smile / -smile[corners, 1].mean(), 0.0)
    field["frown"][:] = lip.sealed(0.004 * frown / frown[corners, 1].mean(), 0.0)
    field["cheek"][:] = 0.0035 * cheek / -cheek[[205, 425], 1].mean()
    field["sneer"][:] = lip.sealed(0.003 * sneer / -sneer[[129, 358], 1].mean(), 0.0)

    near, beyond = lip.inside, lip.beyond
    field["close"][:, 1] = np.where(lip.lower, -0.65, 0.35) * hump(beyond, 0.016) * near * np.maximum(lip.gap, 0)
    field["tuck"][:, 1] = np.where(lip.lower, -0.0012 * hump(beyond, 0.010) * lip.rise, 0) * near
    field["tuck"][:, 2] = np.where(lip.lower, 0.0030 * hump(beyond, 0.008) * lip.rise, 0) * near
    field["blink"][:] = lids(p)
    return out


def fading(p: np.ndarray) -> np.ndarray:
    """How much of a head's motion vertices [V, 3] still have [V]: a collar does not go down with the chin."""
    chin = p[152, 1]
    return 1 - smoothstep(chin + 0.012, chin + 0.060, p[:, 1])


@dataclass(frozen=True)
class Lips:
    """Vertices about the mouth [V]."""

    x: np.ndarray  # [11] m, along the inner lips
    arch: np.ndarray  # [11] how far a mouth that opens by 1 is open there
    at: np.ndarray  # x of the vertices
    inside: np.ndarray  # between the corners
    rise: np.ndarray  # `arch` at the vertices
    gap: np.ndarray  # m between the lips at rest, at the vertices
    lower: np.ndarray  # below the line of the lips
    beyond: np.ndarray  # m from the own lip's edge

    @classmethod
    def of(cls, p: np.ndarray, mouth: Mouth) -> Lips:
        u, over, under, gap = mouth.places(p)
        lower = under + gap / 2 > 0
        lower[LIP_LOWER[1:-1]], lower[LIP_UPPER] = True, False
        beyond = np.maximum(np.where(lower, under, over), 0)
        along = np.clip(2 * (mouth.x - mouth.left) / (mouth.right - mouth.left) - 1, -1, 1)
        rise = np.clip(1 - u**2, 0, 1) ** ARCH
        return cls(mouth.x, (1 - along**2) ** ARCH, p[:, 0], np.abs(u) < 1, rise, gap, lower, beyond)

    def sealed(self, moved: np.ndarray, gap: np.ndarray | float, share: float = 0.5) -> np.ndarray:
        """A displacement [V, 3] after which lips that touched are `gap` [11] apart; the lower one gives `share` of it.

        A carried displacement opens the lips of another face by another amount, and unevenly.
        """
        missing = gap - (moved[LIP_LOWER, 1] - moved[LIP_UPPER, 1])
        missing[[0, -1]] = 0
        more = np.interp(self.at, self.x, missing) * hump(self.beyond, 0.012) * self.inside
        more[LIP_LOWER], more[LIP_UPPER] = missing, missing
        out = moved.copy()
        out[:, 1] += np.where(self.lower, share, share - 1) * more
        return out


def lids(p: np.ndarray) -> np.ndarray:
    """Closing eyes [V, 3]: the upper lid comes down on the lower one and the skin above stretches after it."""
    out = np.zeros((len(p), 3))
    brow = np.concatenate([p[row] for row in BROWS])
    brow = brow[np.argsort(brow[:, 0])]
    for rim, _, _ in holes(p)[:-1]:
        upper, lower = rim[: len(rim) // 2], rim[len(rim) // 2 :]
        x = np.maximum.accumulate(p[upper, 0])
        below = np.stack([np.interp(p[upper, 0], p[lower, 0], p[lower, c]) for c in range(3)], 1)
        way = below - p[upper]
        way[:, 0] = 0
        way[:, 1] = np.maximum(way[:, 1], 0)
        drop = np.stack([np.interp(p[:, 0], x, way[:, c], left=0, right=0) for c in range(3)], 1)
        edge = np.interp(p[:, 0], x, p[upper, 1])
        room = np.maximum(0.6 * (edge - np.interp(p[:, 0], brow[:, 0], brow[:, 1])), 0.006)
        height = np.where(edge > p[:, 1], np.maximum(edge - p[:, 1] - 1.1 * LASH, 0), edge - p[:, 1]) / room
        out += 0.97 * drop * (np.where(height >= 0, np.clip(1 - height, 0, 1) ** 1.4, 0))[:, None]
        out[upper[1:-1]] = 0.97 * way[1:-1]
        out[lower[1:-1], 1] = -0.04 * np.interp(p[lower[1:-1], 0], x, way[:, 1])
    return out
