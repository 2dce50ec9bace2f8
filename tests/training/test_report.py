import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from vocalface.errors import OutputError
from vocalface.training import report
from vocalface.training.report import Report, strip


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop() == tag


def page(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    return (
        Report("A <head> & its numbers", {"preset": "demo", "steps": 1500})
        .heading("Numbers")
        .table(["row", "psnr", "ok"], [["audio", 35.12345, True], ["<frozen>", None, False], ["x", float("nan"), 3]])
        .curve("loss", {"face": np.exp(-np.arange(5000) / 900), "mouth": [1.0, np.nan, 0.5]}, y="L1", log=True)
        .images("truth | result | difference", [strip(image, image)])
        .images("photo", [image[..., 0]], photo=True)
        .text("Synthetic <media>.")
        .write(tmp_path / "report.html")
    )


def test_page_is_whole_and_self_contained(tmp_path):
    text = page(tmp_path).read_text()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "http" not in text and "<script" not in text and "<head> &" not in text.replace("<head><meta", "")
    assert (
        "35.12" in text and text.count("n/a") == 2 and "&lt;frozen&gt;" in text and "Synthetic &lt;media&gt;." in text
    )
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_pictures_are_inside(tmp_path):
    text = page(tmp_path).read_text()
    png, jpeg = (base64.b64decode(re.search(rf"data:image/{k};base64,([^\"]+)", text)[1]) for k in ("png", "jpeg"))
    assert png.startswith(b"\x89PNG") and jpeg.startswith(b"\xff\xd8")


def points(svg):
    root = ElementTree.fromstring(svg)
    path = next(p for p in root.iter("path") if p.get("fill") == "none")
    return np.array([float(v) for v in re.findall(r"[-\d.]+", path.get("d"))]).reshape(-1, 2), path.get("d")


def test_chart_maps_values_to_places():
    xy, _ = points(report._chart({"a": [0, 1, 4]}, [10, 20, 30], "dB", "step", False))
    assert np.allclose(np.diff(xy[:, 0]), np.diff(xy[:, 0])[0], atol=0.2)
    assert (xy[0, 1] - xy[1, 1]) * 4 == pytest.approx(xy[0, 1] - xy[2, 1], abs=0.5)
    assert xy[0, 0] == report.LEFT and xy[-1, 0] == report.WIDTH - report.RIGHT


def test_nan_breaks_the_line_and_spikes_survive_thinning():
    _, path = points(report._chart({"a": [1, 2, np.nan, 3, 4]}, None, "", "", False))
    assert path.count("M") == 2
    values = np.zeros(20_000)
    values[12_345] = 1
    xy, _ = points(report._chart({"a": values}, None, "", "", False))
    assert len(xy) <= report.MOST_POINTS and np.ptp(xy[:, 1]) > 100


@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [2.0, 2.0], [0.0, 0.0]])
def test_odd_series_draw(values):
    svg = report._chart({"a": values}, None, "", "", False)
    ElementTree.fromstring(svg)
    assert "nan" not in svg


@pytest.mark.parametrize("low, high", [(0, 1), (-3.2, 17), (1e-5, 2e-5), (0, 50_000)])
def test_ticks_are_round_and_inside(low, high):
    ticks = report._ticks(low, high, 5)
    assert 2 <= len(ticks) <= 6 and ticks[0] >= low - 1e-9 and ticks[-1] <= high * (1 + 1e-9)
    assert np.allclose(ticks / (ticks[1] - ticks[0]), np.round(ticks / (ticks[1] - ticks[0])))


def test_strip():
    a, b = np.full((2, 3, 3), 100, np.uint8), np.full((2, 3, 3), 90, np.uint8)
    out = strip(a, b)
    assert out.shape == (2, 9, 3) and (out[:, 6:] == 40).all() and (strip(a, a)[:, 6:] == 0).all()


def test_unwritable(tmp_path):
    with pytest.raises(OutputError):
        Report("x").write(tmp_path / "absent" / "report.html")
