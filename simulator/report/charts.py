"""Charts as SVG text: lines with bands, points with intervals, stacked shares. No library, no file, no script.

>>> axis_over("rounds", [0.0, 98.0], zero=True).ticks()
[0.0, 50.0, 100.0]
>>> plot(Axis("x", 0.0, 1.0), Axis("y", 0.0, 1.0), [PlotLine("a line", [(0.0, 0.0), (1.0, 1.0)])])[:12]
'<figure><svg'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 16, 14, 48
_INSIDE = (
    f'x="{_LEFT}" y="{_TOP}" width="{WIDTH - _LEFT - _RIGHT}" height="{HEIGHT - _TOP - _BOTTOM}" '
    f'viewBox="{_LEFT} {_TOP} {WIDTH - _LEFT - _RIGHT} {HEIGHT - _TOP - _BOTTOM}"'
)
"""An inner picture of the same coordinates, whose edge cuts off what leaves the axes."""
_WIDE, _ROW = 190, 28
"""Of a forest plot: the room for its labels, and the height of a row."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#7f7f7f")
"""Told apart by colour-blind readers too (Okabe and Ito, 2008, with two more)."""


@dataclass(frozen=True, slots=True)
class PlotLine:
    """A line through points (x, y), with a band from ``low`` to ``high`` if both are given."""

    label: str
    points: Sequence[tuple[float, float]]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: str = COLOURS[0]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """A point with half widths of its intervals; ``mark`` is ``dot`` or ``diamond``.

    ``label`` is what the legend calls its colour, ``note`` is written beside it.
    """

    label: str
    x: float
    y: float
    half_x: float = 0.0
    half_y: float = 0.0
    colour: str = COLOURS[0]
    mark: str = "dot"
    note: str = ""


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One row of a forest plot: an estimate (``None``: there is none) and its intervals (label, low, high, colour)."""

    label: str
    estimate: float | None
    intervals: Sequence[tuple[str, float, float, str]]


@dataclass(frozen=True, slots=True)
class Axis:
    """A range, what it measures, and whether it is logarithmic (then both ends are above 0)."""

    title: str
    low: float
    high: float
    log: bool = False
    _ends: tuple[float, float] = field(init=False, default=(0.0, 1.0))

    def __post_init__(self) -> None:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        object.__setattr__(self, "_ends", (low, high))

    def place(self, value: float) -> float:
        """Where ``value`` is between the ends, 0 to 1 if inside."""
        low, high = self._ends
        at = math.log10(max(value, 1e-300)) if self.log else value
        return (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """About five round values inside the range."""
        low, high = self._ends
        if self.log and high - low >= 1.0:
            decades = [10.0**e for e in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]
            return decades[:: math.ceil(len(decades) / 6)]
        if self.log:
            low, high = 10.0**low, 10.0**high
        raw = (high - low) / 5.0
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step = magnitude * next(m for m in (1.0, 2.0, 5.0, 10.0) if m * magnitude >= raw * (1.0 - 1e-9))
        first = math.ceil(low / step - 1e-9)
        return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def axis_over(title: str, values: Sequence[float], *, log: bool = False, zero: bool = False) -> Axis:
    """An axis that holds ``values`` with a margin; from 0 if ``zero``; logarithmic if ``log`` and all are above 0."""
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if log and low > 0.0:
        return Axis(title, low / 1.4, high * 1.4, log=True)
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return Axis(title, low if zero and low == 0.0 else low - margin, high + margin)


def plot(x: Axis, y: Axis, lines: Sequence[PlotLine] = (), points: Sequence[Marker] = ()) -> str:
    """A chart of lines and points; hovering a point or a line names it, and a legend below names the colours."""
    parts = [_frame(x, y), f"<svg {_INSIDE}>"]
    for line in lines:
        if line.low:
            edge = [(px, value) for (px, _), value in zip(line.points, line.high, strict=True)]
            back = [(px, value) for (px, _), value in zip(line.points, line.low, strict=True)]
            parts.append(f'<path d="{_path(x, y, edge + back[::-1])}Z" fill="{line.colour}" opacity="0.18"/>')
    for line in lines:
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        parts.append(
            f'<path d="{_path(x, y, line.points)}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}>'
            f"<title>{escape(line.label)}</title></path>"
        )
    parts.append("</svg>")
    for point in points:
        parts.append(_point(x, y, point))
    legend = [(line.label, line.colour) for line in lines] + [(point.label, point.colour) for point in points]
    return _figure("".join(parts), legend)


def stacked(x: Axis, y: Axis, xs: Sequence[float], layers: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Layers (label, heights at ``xs``) on top of each other, in the order given from the bottom."""
    parts = [_frame(x, y)]
    below = [0.0] * len(xs)
    legend = []
    for i, (label, heights) in enumerate(layers):
        colour = COLOURS[i % len(COLOURS)]
        above = [b + h for b, h in zip(below, heights, strict=True)]
        outline = list(zip(xs, above, strict=True)) + list(zip(xs, below, strict=True))[::-1]
        path = _path(x, y, outline)
        parts.append(f'<path d="{path}Z" fill="{colour}" opacity="0.85"><title>{escape(label)}</title></path>')
        legend.append((label, colour))
        below = above
    return _figure("".join(parts), legend)


def forest(x: Axis, rows: Sequence[ForestRow], mark: float | None = None) -> str:
    """Estimates below each other with their intervals; a dashed line at ``mark``."""
    bottom = _TOP + _ROW * len(rows)
    parts = []
    for value in x.ticks():
        at = _x(x, value, _WIDE)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{short(value)}</text>')
    parts.append(f'<path class="axis" d="M{_WIDE} {bottom}H{WIDTH - _RIGHT}"/>')
    if mark is not None:
        parts.append(f'<path class="axis" stroke-dasharray="5 4" d="M{_x(x, mark, _WIDE):.1f} {_TOP}V{bottom}"/>')
    legend = []
    for i, row in enumerate(rows):
        middle = _TOP + _ROW * (i + 0.5)
        parts.append(f'<text x="{_WIDE - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(row.label)}</text>')
        for j, (label, low, high, colour) in enumerate(row.intervals):
            y = middle + 6.0 * (j - (len(row.intervals) - 1) / 2.0)
            left, right = (min(max(_x(x, end, _WIDE), _WIDE), WIDTH - _RIGHT) for end in (low, high))
            title = escape(f"{row.label}, {label}: {short(low)} to {short(high)}")
            parts.append(
                f'<path d="M{left:.1f} {y:.1f}H{right:.1f}" stroke="{colour}" stroke-width="3"><title>{title}</title></path>'
            )
            legend.append((label, colour))
        if row.estimate is not None:
            title = f"<title>{escape(row.label)}: {short(row.estimate)}</title>"
            at = _x(x, row.estimate, _WIDE)
            parts.append(f'<circle class="dot" cx="{at:.1f}" cy="{middle:.1f}" r="4.5">{title}</circle>')
    return _figure("".join(parts), legend, bottom + 24)


def short(value: float) -> str:
    """A number in few characters."""
    return f"{value:.4g}"


def _figure(content: str, legend: Sequence[tuple[str, str]], height: float = HEIGHT) -> str:
    keys = "".join(
        f'<span><i style="background:{colour}"></i>{escape(label)}</span>' for label, colour in dict(legend).items()
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {height:g}" role="img">{content}</svg>'
        f'<figcaption class="legend">{keys}</figcaption></figure>'
    )


def _frame(x: Axis, y: Axis) -> str:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>']
    for value in x.ticks():
        at = _x(x, value)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{short(value)}</text>')
    for value in y.ticks():
        at = _y(y, value)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{escape(y.title)}</text>'
    )
    return "".join(parts)


def _x(axis: Axis, value: float, left: float = _LEFT) -> float:
    return left + axis.place(value) * (WIDTH - left - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - axis.place(value) * (HEIGHT - _TOP - _BOTTOM)


def _path(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_x(x, px):.1f} {_y(y, py):.1f}" for px, py in points)


def _point(x: Axis, y: Axis, point: Marker) -> str:
    cx, cy = _x(x, point.x), _y(y, point.y)
    parts = []
    if point.half_y > 0.0:
        top, bottom = _y(y, point.y + point.half_y), _y(y, point.y - point.half_y)
        parts.append(f'<path d="M{cx:.1f} {top:.1f}V{bottom:.1f}" stroke="{point.colour}" stroke-width="1.5"/>')
    if point.half_x > 0.0:
        low = point.x - point.half_x
        left, right = _x(x, low if low > 0.0 or not x.log else x.low), _x(x, point.x + point.half_x)
        parts.append(f'<path d="M{left:.1f} {cy:.1f}H{right:.1f}" stroke="{point.colour}" stroke-width="1.5"/>')
    shape = (
        f"M{cx:.1f} {cy - 6:.1f}l6 6l-6 6l-6 -6Z"
        if point.mark == "diamond"
        else f"M{cx - 4.5:.1f} {cy:.1f}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z"
    )
    name = ", ".join(filter(None, (point.label, point.note)))
    title = escape(f"{name}: {short(point.x)}, {short(point.y)}")
    parts.append(f'<path d="{shape}" fill="{point.colour}"><title>{title}</title></path>')
    if point.note:
        left = cx < (WIDTH + _LEFT) / 2
        at, anchor = (cx + 9, "start") if left else (cx - 9, "end")
        parts.append(f'<text x="{at:.1f}" y="{cy + 16:.1f}" text-anchor="{anchor}">{escape(point.note)}</text>')
    return "".join(parts)
