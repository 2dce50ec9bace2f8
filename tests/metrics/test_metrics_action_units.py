import numpy as np
import pytest

from vocalface.errors import ObservationsError
from vocalface.metrics import action_units as au
from vocalface.observe.indices import BLENDSHAPES
from vocalface.types import AU_NAMES


def units(**values):
    table = np.zeros((10, 17))
    for name, value in values.items():
        table[:, AU_NAMES.index(name)] = value
    return table


def test_aue_sums_over_units():
    truth = units()
    assert au.aue(truth, truth) == (0, 0)
    assert au.aue(units(AU25=1, AU12=2), truth) == (5, 0)
    assert au.aue(units(AU01=1, AU45=0.5), truth) == (0, 1.25)
    alternating = units()
    alternating[::2, AU_NAMES.index("AU26")] = 2
    assert au.aue(alternating, truth)[0] == 2  # mean over frames


def test_groupings_differ_in_au09():
    assert au.aue(units(AU09=1), units(), "tg") == (0, 1)
    assert au.aue(units(AU09=1), units(), "hm") == (1, 0)
    assert [tuple(len(g) for g in au.GROUPS[k]) for k in ("tg", "hm")] == [(9, 8), (10, 7)]
    assert all(sorted(lower + upper) == sorted(AU_NAMES) for lower, upper in au.GROUPS.values())


def test_blendshapes_stand_for_units():
    shapes = np.zeros((40, len(BLENDSHAPES)))
    shapes[20:, BLENDSHAPES.index("jawOpen")] = 0.4
    shapes[:, BLENDSHAPES.index("eyeBlinkLeft")] = shapes[:, BLENDSHAPES.index("eyeBlinkRight")] = (
        0.2  # at rest: removed
    )
    shapes[30:, BLENDSHAPES.index("mouthSmileLeft")] = 1
    result = au.from_blendshapes(shapes)
    assert result.shape == (40, 17) and result.min() == 0 and result.max() <= 5
    value = lambda name: result[35, AU_NAMES.index(name)]  # noqa: E731
    assert value("AU26") == pytest.approx(2) and value("AU25") == pytest.approx(2)
    assert value("AU12") == pytest.approx(2.5) and value("AU45") == 0
    shapes[:, BLENDSHAPES.index("mouthClose")] = np.linspace(0, 0.4, 40)
    assert au.from_blendshapes(shapes)[-1, AU_NAMES.index("AU25")] < 2


def test_aue_bs_uses_the_true_clips_baseline():
    shapes = np.zeros((40, len(BLENDSHAPES)))
    shapes[::2, BLENDSHAPES.index("jawOpen")] = 0.4
    assert au.aue_bs(shapes, shapes) == (0, 0)
    frozen = np.full_like(shapes, 0)
    frozen[:, BLENDSHAPES.index("jawOpen")] = 0.4  # its own baseline would hide that it never closes
    lower, upper = au.aue_bs(frozen, shapes)
    assert lower == pytest.approx(2 * 4 / 2) and upper == 0  # AU25 and AU26, 2 off in half the frames
    assert np.isnan(au.aue_bs(np.full_like(shapes, np.nan), shapes)).all()


def test_unit_correlation():
    truth = units()
    truth[:, AU_NAMES.index("AU26")] = np.sin(np.arange(10))
    assert au.unit_correlation(3 * truth + 1, truth, "AU26") == pytest.approx(1)
    assert np.isnan(au.unit_correlation(truth, truth, "AU25"))


@pytest.mark.parametrize("blank", ["", " "])
def test_openface_table(tmp_path, blank):
    path = tmp_path / "au.csv"
    columns = [f"{name}_r" for name in reversed(AU_NAMES)] + ["AU28_c"]
    rows = [",".join(str(100 * t + i) for i in range(18)) for t in range(3)]
    path.write_text("\n".join([f",{blank}".join(columns), *rows]))
    table = au.read_openface(path)
    assert table.shape == (3, 17) and table[2, 0] == 216 and table[0, -1] == 0
    assert au.aue(table, table, "hm") == (0, 0)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", ",".join(f"{n}_r" for n in AU_NAMES) + "\n" + ",".join("x" * 17)])
def test_bad_table(tmp_path, text):
    path = tmp_path / "au.csv"
    path.write_text(text)
    with pytest.raises(ObservationsError, match="action units"):
        au.read_openface(path)
    with pytest.raises(ObservationsError):
        au.read_openface(tmp_path / "absent.csv")
