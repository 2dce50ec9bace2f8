"""ICT-FaceKit (USC Institute for Creative Technologies, MIT licence) from its packed file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from vocalface import assets
from vocalface.errors import AssetError
from vocalface.faces import FaceModel
from vocalface.observe.indices import LANDMARKS_68

FILE, CANONICAL = "ict_facekit/ict_facekit.npz", "mediapipe/canonical_face_model.obj"
SKIN, HEAD = 9409, 11248  # vertices of the face come first, then those of head and neck; mouth socket, eyes, teeth
UNIT = 0.01  # the file is in centimetres
LANDMARK_VERTICES = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443, 268, 493, 1914,
    2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542, 1537,
    1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518,
    5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
"""Vertices of the 68 points of the 300-W layout, as ICT-FaceKit publishes them."""
MEDIAPIPE_VERTICES = (
    5525, 4553, 1147, 4946, 4857, 4839, 4511, 1623, 2012, 1398, 1851, 5523, 5526, 5531, 5515, 5516, 5514, 5518, 10,
    4554, 5499, 297, 1102, 1099, 1107, 1626, 1382, 683, 653, 691, 607, 1245, 774, 1507, 1766, 1633, 1165, 6043,
    6038, 5691, 5610, 5656, 5606, 458, 4590, 4859, 991, 2227, 4766, 4765, 1200, 4629, 1034, 497, 324, 2003, 645,
    166, 1454, 4625, 4950, 5708, 5913, 1010, 4868, 1414, 2041, 1424, 308, 2046, 269, 284, 6040, 5628, 5588, 4614,
    5917, 5776, 5702, 5012, 5664, 5764, 6021, 1435, 6004, 6006, 6007, 6008, 5847, 5838, 5823, 5807, 401, 1784, 4949,
    5821, 5820, 1144, 4559, 2076, 2224, 1163, 4758, 1864, 2123, 1031, 5904, 2006, 1430, 1856, 541, 39, 2231, 558,
    4485, 4863, 1193, 17, 2166, 2147, 1065, 4458, 4513, 2156, 43, 4593, 954, 1224, 4473, 4566, 711, 4632, 376, 1528,
    5020, 934, 763, 1214, 1669, 715, 799, 4936, 75, 1635, 1552, 1555, 5756, 2093, 1496, 2198, 1674, 974, 965, 1558,
    1390, 600, 733, 658, 1572, 1539, 1577, 1579, 1879, 1549, 1644, 1652, 4787, 2072, 977, 2202, 250, 1498, 757,
    1370, 1303, 962, 1444, 364, 5966, 5967, 5968, 5861, 5907, 5666, 5666, 5558, 160, 2212, 1308, 1363, 1367, 5667,
    938, 931, 397, 4948, 1346, 1348, 4573, 964, 8, 1452, 1409, 2175, 212, 24, 21, 199, 1499, 4734, 772, 392, 195,
    1665, 1462, 1780, 411, 1344, 4781, 4761, 4980, 1620, 650, 696, 685, 547, 538, 1770, 2190, 1157, 1081, 1061,
    1056, 4451, 1788, 4579, 4986, 4589, 5501, 4977, 4564, 4591, 4935, 2068, 1328, 1318, 1580, 705, 5402, 3832, 5490,
    2538, 3322, 3319, 3327, 3835, 3597, 2924, 2894, 2932, 2848, 3463, 3015, 3721, 3969, 3842, 3384, 6547, 6542,
    6196, 6115, 6161, 6111, 2699, 5055, 5317, 3211, 4418, 5231, 5230, 3418, 5094, 3254, 2738, 2565, 4203, 2886,
    2407, 3668, 5090, 5404, 6213, 6418, 3230, 5326, 3628, 4237, 3638, 2549, 4242, 2510, 2525, 6544, 6133, 6093,
    5079, 6422, 6281, 6207, 5466, 6169, 6269, 6525, 3649, 6508, 6510, 6511, 6512, 6352, 6343, 6328, 6312, 2642,
    3987, 6326, 6325, 3364, 5024, 4270, 4415, 3382, 5223, 4064, 4317, 3251, 6409, 4206, 3644, 4056, 2782, 2280,
    4422, 2799, 4486, 5321, 3411, 2258, 4359, 4340, 3285, 4464, 4509, 4349, 2284, 5058, 3194, 3442, 4476, 5031,
    2952, 5097, 2617, 3742, 5474, 3174, 3004, 3432, 3876, 2956, 3040, 5393, 2316, 3844, 3766, 3769, 6261, 4287,
    3710, 4389, 3881, 3772, 3605, 2841, 2974, 2899, 3786, 3753, 3791, 3793, 4079, 3763, 3859, 5251, 4266, 4393,
    2491, 3712, 2998, 3585, 3521, 3658, 2605, 6470, 6471, 6472, 6366, 6412, 6171, 6171, 6063, 2401, 4403, 3525,
    3578, 3582, 6172, 3178, 3172, 2638, 3563, 5038, 3666, 3623, 4368, 2453, 2265, 2262, 2440, 3713, 5199, 3013,
    2633, 2436, 3872, 3676, 3983, 2652, 3561, 5245, 5226, 5434, 3829, 2891, 2937, 2926, 2788, 2779, 3973, 4382,
    3376, 3301, 3281, 3276, 4452, 3991, 5044, 5440, 5054, 5488, 5431, 5029, 5056, 5392, 4262, 3545, 3535, 3794,
    2946,
)  # fmt: skip
"""Vertices of MediaPipe's 468 landmarks, found by `correspondence`."""
PARTING = (
    ("jawOpen",), ("mouthLowerDown_L", "mouthLowerDown_R"), ("mouthUpperUp_L", "mouthUpperUp_R"), ("mouthFunnel",),
    ("eyeWide_L", "eyeWide_R"),
)  # fmt: skip
"""What tells the canonical face's expression from the model's: its lips are parted, its eyes wide."""
CORNERS = (61, 291, 78, 308, 33, 133, 263, 362)
UPPER_LIP = [
    185, 40, 39, 37, 0, 267, 269, 270, 409, 184, 74, 73, 72, 11, 302, 303, 304, 408, 183, 42, 41, 38, 12, 268, 271, 272,
    407, 191, 80, 81, 82, 13, 312, 311, 310, 415,
]  # fmt: skip
LOWER_LIP = [
    146, 91, 181, 84, 17, 314, 405, 321, 375, 77, 90, 180, 85, 16, 315, 404, 320, 307, 96, 89, 179, 86, 15, 316, 403,
    319, 325, 95, 88, 178, 87, 14, 317, 402, 318, 324,
]  # fmt: skip
LIPS = ((UPPER_LIP, False), (LOWER_LIP, True))
TRUE = 0.003  # m, by which the canonical face may miss the fitted model


def model(vertices: int | None = None) -> FaceModel:
    """The whole head with teeth and eyes, quads split in two, or its first `vertices`.

    Raises AssetError without its file.
    """
    path = assets.path(FILE)
    try:
        with np.load(path) as data:
            neutral = data["neutral"][:vertices].astype(np.float32)
            quads, names = data["faces"], tuple(str(n) for n in data["expr_names"])
            expression, identity = (data[k][:, :vertices].astype(np.float32) for k in ("expr", "identity"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise AssetError("not the packed ICT-FaceKit", path, "pack it as registry.toml says") from error
    quads = quads[(quads < len(neutral)).all(1)]
    whole = quads[:, 3] >= 0
    faces = np.concatenate([quads[:, :3], quads[whole][:, [0, 2, 3]]])
    anchors = np.repeat(np.array(MEDIAPIPE_VERTICES)[:, None], 3, axis=1)
    weights = np.tile(np.float32([1, 0, 0]), (len(anchors), 1))
    for values in (neutral, identity, expression):  # in place: they are large
        values *= UNIT
    return FaceModel("ict", neutral, identity, expression, names, faces, anchors, weights)


def read_points(path: Path) -> np.ndarray:
    """The vertices [N, 3] of an OBJ file."""
    try:
        rows = [line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")]
        points = np.array(rows, float)
    except (OSError, ValueError) as error:
        raise AssetError("cannot read the canonical face", path, f"vocalface fetch {CANONICAL}") from error
    if points.shape != (468, 3):
        raise AssetError(f"{len(points)} points, expected 468", path, f"vocalface fetch {CANONICAL}")
    return points


def correspondence(canonical: np.ndarray, face: FaceModel) -> np.ndarray:
    """The vertex of each of MediaPipe's 468 landmarks, [468]; `MEDIAPIPE_VERTICES` holds the outcome.

    The canonical face is laid on the model by a similarity and bent by radial basis functions until the 68 common
    points meet. From there the model is fitted to it, lips parted, and each landmark slides to the nearest vertex until
    both rest: the 3 mm by which the bent face misses what landmarkers find in pictures become 1.6. Lips keep to their
    own side, and corners of mouth and eyes to their published vertices, for nothing else holds them there.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.spatial import cKDTree

    from vocalface.observe.pose import similarity_transform

    skin = face.neutral[:SKIN].astype(float)
    known = skin[list(LANDMARK_VERTICES)]
    scale, r, t = similarity_transform(canonical[LANDMARKS_68], known)
    laid = scale * canonical @ r.T + t
    _, first = np.unique(LANDMARKS_68, return_index=True)
    bend = RBFInterpolator(laid[LANDMARKS_68[first]], known[first] - laid[LANDMARKS_68[first]], smoothing=1e-5)
    found = cKDTree(skin).query(laid + bend(laid))[1]
    published = dict(zip(LANDMARKS_68.tolist(), LANDMARK_VERTICES))

    parting = np.stack([face.expression[[face.expressions.index(n) for n in row], :SKIN].sum(0) for row in PARTING])
    basis = np.concatenate([face.identity[:60, :SKIN], parting]).astype(float)
    prior = np.concatenate([np.full(60, 4.0), np.full(len(parting), 9.0)])
    drop = -face.expression[face.expressions.index("jawOpen"), :SKIN, 1]
    sides = [(lip, np.flatnonzero(drop > 0.4 * drop.max() if low else drop < 0.2 * drop.max())) for lip, low in LIPS]
    values = np.zeros(len(basis))
    for _ in range(8):
        for _ in range(3):
            scale, r, t = similarity_transform((skin + np.tensordot(values, basis, 1))[found], canonical)
            moves = scale * basis[:, found] @ r.T / TRUE
            off = (canonical - scale * (skin + np.tensordot(values, basis, 1))[found] @ r.T - t) / TRUE
            gram = np.einsum("iac,jac->ij", moves, moves) + np.diag(prior)
            values += np.linalg.solve(gram, np.einsum("iac,ac->i", moves, off) - prior * values)
            values[60:] = np.clip(values[60:], 0, 1)
        fitted = scale * (skin + np.tensordot(values, basis, 1)) @ r.T + t
        found = cKDTree(fitted).query(canonical)[1]
        for lip, own in sides:
            found[lip] = own[cKDTree(fitted[own]).query(canonical[lip])[1]]
        for corner in CORNERS:
            found[corner] = published[corner]
    return found
