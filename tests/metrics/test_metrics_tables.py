from vocalface.metrics import tables


def test_rows_and_anchors():
    counts = [len(t) for t in (tables.SELF_RECONSTRUCTION, tables.AGAINST_2D, tables.LIP_SYNC, tables.ABLATIONS)]
    assert counts == [7, 4, 10, 13]
    hm = tables.SELF_RECONSTRUCTION[-1]
    assert hm["method"] == "HM-Talker" and hm["psnr"] == 35.15 and hm["fps"] == 110 and len(hm) == 10
    assert tables.AGAINST_2D[0]["aue_u"] is None
    assert tables.LIP_SYNC[0] == {
        "method": "GroundTruth", "shaheen_sync_d": 6.239, "shaheen_sync_c": 10.015, "lieu_sync_d": 6.840,
        "lieu_sync_c": 8.372,
    }  # fmt: skip
    assert {r["setting"].split("=")[0] for r in tables.ABLATIONS} == {"fusion", "explicit", "audio", "mapper"}
