"""The tables of the HM-Talker paper as data, to stand beside measured rows. None is a cell that the paper leaves out.

They are other people's numbers on other clips: comparable in kind, not in size.
"""

from __future__ import annotations

Row = dict[str, "str | float | None"]


def _table(columns: str, rows: str) -> list[Row]:
    names = columns.split(",")
    lines = [line.strip().split(",") for line in rows.strip().splitlines()]
    return [
        {n: cell if i == 0 else None if cell == "-" else float(cell) for i, (n, cell) in enumerate(zip(names, line))}
        for line in lines
    ]


SELF_RECONSTRUCTION = _table(
    "method,psnr,lpips,ssim,lmd,aue_l,aue_u,sync_c,train_h,fps",
    """
    AD-NeRF,30.07,0.1042,0.9689,2.998,1.01,0.97,6.053,18.7,0.11
    RAD-NeRF,31.95,0.0620,0.9660,2.847,0.74,0.76,5.742,5.3,28.7
    ER-NeRF,32.47,0.0395,0.9658,2.639,0.62,0.54,6.531,2.1,31.2
    SyncTalk,34.51,0.0221,0.9959,2.607,0.55,0.29,7.502,2.0,52
    GaussianTalker,32.69,0.0442,0.9952,2.726,0.67,0.59,6.234,3.2,95
    TalkingGaussian,32.48,0.0309,0.9950,2.616,0.60,0.28,6.246,0.5,108
    HM-Talker,35.15,0.0207,0.9971,2.514,0.53,0.22,7.807,0.51,110
    """,
)
"""Table 1: held-out tail of the person's own video, true torso and background."""

AGAINST_2D = _table(
    "method,lmd,aue_l,aue_u,sync_c",
    """
    IP-LAP,3.161,1.00,-,7.040
    DINet,3.230,1.09,-,7.455
    TalkLip,3.285,0.82,-,6.657
    HM-Talker,2.636,0.61,0.26,7.756
    """,
)
"""Table 2: against methods that re-make the lips of a video (HM-Talker's row differs from Table 1's, unexplained)."""

LIP_SYNC = _table(
    "method,shaheen_sync_d,shaheen_sync_c,lieu_sync_d,lieu_sync_c",
    """
    GroundTruth,6.239,10.015,6.840,8.372
    DINet,8.201,7.295,8.226,6.470
    IP-LAP,9.819,5.316,9.392,5.077
    TalkLip,9.553,5.488,11.679,3.151
    RAD-NeRF,12.012,3.054,12.044,2.449
    ER-NeRF,9.775,5.529,10.017,4.782
    SyncTalk,8.903,6.350,7.508,7.780
    GaussianTalker,8.926,6.576,10.943,4.198
    TalkingGaussian,11.450,3.179,9.849,5.039
    HM-Talker,7.590,7.972,7.292,7.994
    """,
)
"""Table 3: one head driven by two other speakers; GroundTruth is those speakers' own video."""

ABLATIONS = _table(
    "setting,psnr,aue_l,aue_u,sync_c,lmd",
    """
    fusion=gate,35.155,0.53,0.22,7.807,2.514
    fusion=concat,35.100,0.52,0.24,7.818,2.515
    fusion=fixed_alpha_0.5,35.053,0.54,0.31,7.770,2.527
    fusion=implicit_only,35.063,0.61,0.27,7.747,2.531
    fusion=explicit_only,34.944,0.53,0.32,7.382,2.588
    explicit=au,35.155,0.53,0.22,7.807,2.514
    explicit=3dmm,35.117,0.52,0.26,7.679,2.534
    explicit=blendshape,35.106,0.53,0.25,7.731,2.520
    audio=ave,35.155,0.53,0.22,7.807,2.514
    audio=deepspeech,34.847,0.72,0.22,6.230,2.718
    audio=hubert,35.018,0.47,0.20,6.890,2.531
    mapper=cmdm_au,35.155,0.53,0.22,7.807,2.514
    mapper=expnet_3dmm,34.257,0.85,0.25,6.404,3.181
    """,
)
"""Table 4: one switch at a time."""
