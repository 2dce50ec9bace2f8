"""MediaPipe's face landmarks by meaning: indices into the 478 points, and its 52 blendshapes by name.

"Left" and "right" are the image's, so that x grows from the first to the last of a pair.
"""

from __future__ import annotations

import numpy as np

LIPS_OUTER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146]
LIPS_INNER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95]
EARS = [234, 454]  # the face's rim before them; the head's origin lies midway
FACE_OVAL = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
]  # fmt: skip
EYE_LEFT = [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246]
EYE_RIGHT = [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466]
CHIN = [152, 148, 377, 176, 400]
JAW = [58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288]

RIGID = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 109, 67, 103, 54, 21, 162, 127, 234,  # upper oval
    151, 108, 69, 104, 68, 71, 139, 337, 299, 333, 298, 301, 368, 9, 8,  # forehead
    6, 168, 197, 195, 5, 122, 351, 196, 419, 174, 399, 188, 412, 193, 417, 245, 465,  # nose bridge
    33, 263, 133, 362, 34, 264, 227, 447, 143, 372, 156, 383,  # corners of the eyes, temples
    116, 345, 117, 346, 118, 347, 123, 352, 111, 340,  # cheek bones
]  # fmt: skip
"""Points that expressions move little: upper face, nose bridge, temples, cheek bones."""

BROW_LEFT = [70, 63, 105, 66, 107, 46, 53, 52, 65, 55]
BROW_RIGHT = [300, 293, 334, 296, 336, 276, 283, 282, 295, 285]
IRIS_LEFT, IRIS_RIGHT = [468, 469, 470, 471, 472], [473, 474, 475, 476, 477]

LOWER_FACE = sorted(
    {*LIPS_OUTER, *LIPS_INNER, *JAW, 164, 2, 18, 200, 199, 175, 57, 287, 43, 273, 106, 335, 182, 406, 83, 313,
     202, 422, 204, 424, 194, 418, 201, 421, 208, 428, 92, 322, 165, 391, 186, 410, 212, 432, 216, 436, 206, 426}
)  # fmt: skip

# 68 points of the 300-W layout: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67.
LANDMARKS_68 = np.array([
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 59, 60, 2, 290, 289,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
])  # fmt: skip

BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
BLENDSHAPES_LOWER = [i for i, n in enumerate(BLENDSHAPES) if n.startswith(("jaw", "mouth", "cheekPuff"))]
