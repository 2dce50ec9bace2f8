"""Ablations: every run once, kept for the very clip and configuration it was made with; means and spreads."""

from types import SimpleNamespace

import pytest

from vocalface.errors import ConfigError
from vocalface.hmtalker import ablate
from vocalface.hmtalker.config import PRESETS


@pytest.fixture
def trained(monkeypatch):
    """The configurations that were trained; the number that a run yields is its seed."""
    runs = []

    def train(obs, output, *, config, **_):
        runs.append(config)
        output.write_bytes(b"a head")
        rows = {name: {"psnr_head": 1.0} for name in ablate.CONTROLS}
        return SimpleNamespace(metrics={"val": {"psnr_head": float(config.seed)}, "rows": rows})

    monkeypatch.setattr(ablate, "train", train)
    return runs


def run(folder, config=PRESETS["tiny"], clip="a" * 64, variants=("hybrid", "masked-1:7:2")):
    return ablate.ablate({"clip": SimpleNamespace(clip_hash=clip)}, folder, config, variants=variants, seeds=3)


def test_every_variant_with_every_seed_beside_the_controls(trained, tmp_path):
    rows = {row.variant: row for row in run(tmp_path)}
    assert [(c.path_masked, c.seed) for c in trained] == [(0.4, 0), (0.4, 1), (0.4, 2), (0.7, 0), (0.7, 1), (0.7, 2)]
    assert set(rows) == {"hybrid", "masked-1:7:2", "undeformed", "shuffled audio", "mouth frozen"}
    mean, spread = rows["hybrid"].numbers["psnr_head"]
    assert rows["hybrid"].runs == 3 and mean == 1 and spread == pytest.approx((2 / 3) ** 0.5)
    assert "| hybrid | 3 | 1.000 ± 0.816 | n/a |" in ablate.table(list(rows.values()))
    assert {p.suffix for p in tmp_path.iterdir()} == {".json"}, "no head is left behind"


def test_a_finished_run_is_kept_only_for_its_own_clip_and_configuration(trained, tmp_path):
    first = run(tmp_path)
    assert run(tmp_path) == first and len(trained) == 6
    run(tmp_path, PRESETS["tiny"].replace(face_steps=5))
    assert len(trained) == 12
    run(tmp_path, PRESETS["tiny"].replace(face_steps=5), clip="b" * 64)
    assert len(trained) == 18
    (tmp_path / "clip-hybrid-1.json").write_text("{")
    run(tmp_path, PRESETS["tiny"].replace(face_steps=5), clip="b" * 64)
    assert len(trained) == 19


def test_an_unknown_variant_is_refused_before_anything_is_trained(trained, tmp_path):
    with pytest.raises(ConfigError, match="hybird"):
        run(tmp_path / "runs", variants=("hybrid", "hybird"))
    assert not trained and not (tmp_path / "runs").exists()
