"""A report as one HTML file that needs nothing else: no network, no script, pictures and charts inside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from vocalface import __version__, media
from vocalface.errors import OutputError
from vocalface.training.files import write_atomically

COLORS = ("#2f6fde", "#d9542b", "#2a9d6f", "#8a56c9", "#b58a00", "#5c6773")
MOST_POINTS = 800  # of a drawn line; more are thinned to the lowest and highest of each stretch

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --line: #d9dee7; --paper: #fff; --card: #f6f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #333b48; --paper: #14181f; --card: #1b212b } }
body { margin: 2.5rem auto; max-width: 62rem; padding: 0 1.2rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 .5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p, figcaption, footer { color: var(--soft) } footer { margin-top: 3rem; font-size: .85rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 600 }
td.n { text-align: right }
figure { margin: 1rem 0; padding: .8rem; background: var(--card); border-radius: 8px }
figure img { max-width: 100%; display: block; margin: .3rem 0; border-radius: 4px }
figcaption { font-size: .9rem }
svg { width: 100%; height: auto; display: block } svg text { fill: var(--soft); font: 11px system-ui, sans-serif }
.grid { stroke: var(--line) } .key { fill: var(--ink) !important }
"""


class Report:
    """Builds the page from top to bottom; every method but `write` returns the report, so that calls chain."""

    def __init__(self, title: str, meta: Mapping[str, object] | None = None) -> None:
        self.title = title
        self._parts: list[str] = []
        if meta:
            self.table(["", ""], [[k, v] for k, v in meta.items()])

    def heading(self, text: str) -> Report:
        return self._add(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> Report:
        """A paragraph; it is escaped."""
        return self._add(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Report:
        """Rows of cells. Floats show four digits, None shows n/a."""
        head = "".join(f"<th>{escape(str(h))}</th>" for h in header)
        body = "".join("<tr>" + "".join(_cell(v) for v in row) + "</tr>" for row in rows)
        head = f"<thead><tr>{head}</tr></thead>" if any(str(h) for h in header) else ""
        title = f"<h2>{escape(caption)}</h2>" if caption else ""
        return self._add(f'{title}<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>')

    def curve(
        self,
        name: str,
        series: Mapping[str, Sequence[float] | np.ndarray],
        x: Sequence[float] | np.ndarray | None = None,
        y: str = "",
        x_label: str = "",
        log: bool = False,
    ) -> Report:
        """Lines over a common axis.

        Args:
            name: the chart's title.
            series: label -> values; NaN breaks a line.
            x: where the values stand, 0, 1, 2 … by default.
            y, x_label: what the axes mean, with units.
            log: logarithmic y; values that are not positive are left out.
        """
        return self._add(
            f"<figure><figcaption>{escape(name)}</figcaption>{_chart(series, x, y, x_label, log)}</figure>"
        )

    def images(self, caption: str, images: Iterable[np.ndarray], photo: bool = False) -> Report:
        """Pictures, uint8 [H, W, 3 or 4] or [H, W], one below the other; side by side is the caller's np.concatenate.

        `photo` stores JPEG, some ten times smaller.
        """
        tags = "".join(_image(image, ".jpg" if photo else ".png") for image in images)
        return self._add(f"<figure><figcaption>{escape(caption)}</figcaption>{tags}</figure>")

    def html(self) -> str:
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
            f"<h1>{escape(self.title)}</h1>{''.join(self._parts)}"
            f"<footer>vocalface {escape(__version__)}</footer></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Writes the page, whole or not at all. Raises OutputError when `path` cannot be written."""
        path = Path(path)
        try:
            write_atomically(path, self.html().encode())
        except OSError as error:
            raise OutputError(
                f"the report cannot be written: {error.strerror}", path, "choose another folder"
            ) from error
        return path

    def _add(self, part: str) -> Report:
        self._parts.append(part)
        return self


def strip(truth: np.ndarray, result: np.ndarray, gain: float = 4.0) -> np.ndarray:
    """truth | result | difference times `gain`, side by side, uint8 [H, 3 W, 3]."""
    difference = np.abs(truth.astype(np.float32) - result) * gain
    return np.concatenate([truth, result, np.clip(difference, 0, 255).astype(np.uint8)], axis=1)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<td class="n">n/a</td>'
    if isinstance(value, (bool, np.bool_)):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, (int, float, np.number)):
        return (
            f'<td class="n">{value:.4g}</td>'
            if isinstance(value, (float, np.floating))
            else f'<td class="n">{value}</td>'
        )
    return f"<td>{escape(str(value))}</td>"


def _image(image: np.ndarray, suffix: str) -> str:
    data = base64.b64encode(media.encode_image(image, suffix)).decode()
    kind = {".png": "png", ".jpg": "jpeg"}[suffix]
    return f'<img alt="" width="{image.shape[1]}" src="data:image/{kind};base64,{data}">'


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 260, 58, 12, 26, 34


def _chart(series: Mapping, x, y_label: str, x_label: str, log: bool) -> str:
    lines = {}
    for label, values in series.items():
        values = np.asarray(values, np.float64).ravel()
        place = np.arange(len(values)) if x is None else np.asarray(x, np.float64).ravel()[: len(values)]
        values = values[: len(place)]
        if log:
            values = np.log10(np.where(values > 0, values, np.nan))
        lines[label] = _thinned(place, values)
    everything = np.concatenate(
        [np.stack(p)[:, np.isfinite(p[1])] for p in lines.values()] or [np.empty((2, 0))], axis=1
    )
    if not everything.size:
        return "<p>no values</p>"
    (x0, x1), (y0, y1) = _span(everything[0], 0), _span(everything[1], 0.05)

    def at(px, py):
        return (
            LEFT + (px - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (py - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for tick in _ticks(y0, y1, 5):
        _, py = at(x0, tick)
        text = f"{10**tick:.2g}" if log else _number(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {py:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{text}</text>')
    for tick in _ticks(x0, x1, 9):
        px, _ = at(tick, y0)
        parts.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_number(tick)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="{LEFT}" y="12">{escape(y_label)}</text>')
    key = WIDTH - RIGHT - sum(34 + 6.4 * len(str(label)) for label in lines)
    for color, (label, (px, py)) in zip(COLORS * len(lines), lines.items()):
        parts.append(f'<path fill="none" stroke="{color}" stroke-width="1.6" d="{_path(*at(px, py))}"/>')
        parts.append(f'<path stroke="{color}" stroke-width="3" d="M{key:.0f} 8h16"/>')
        parts.append(f'<text class="key" x="{key + 20:.0f}" y="12">{escape(str(label))}</text>')
        key += 34 + 6.4 * len(str(label))
    return "".join(parts) + "</svg>"


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """SVG path with a gap at every NaN."""
    out, pen = [], "M"
    for a, b in zip(x, y):
        if not math.isfinite(b):
            pen = "M"
            continue
        out.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L"
    if len(out) == 1:  # a single value: a dot
        out.append("h2")
    return "".join(out)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points that keep every stretch's lowest and highest."""
    if len(x) <= MOST_POINTS:
        return x, y
    keep = []
    for part in np.array_split(np.arange(len(x)), MOST_POINTS // 2):
        if np.isfinite(y[part]).any():
            keep += sorted({part[np.nanargmin(y[part])], part[np.nanargmax(y[part])]})
        else:
            keep.append(part[0])
    return x[keep], y[keep]


def _span(values: np.ndarray, margin: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    return low - margin * (high - low), high + margin * (high - low)


def _ticks(low: float, high: float, most: int) -> np.ndarray:
    """At most `most` round numbers within the span."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step


def _number(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.4g}"
