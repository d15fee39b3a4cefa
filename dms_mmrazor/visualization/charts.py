"""Small line charts as SVG, colored by the page that they stand in."""

import math
from html import escape
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

Number = Optional[float]

WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 10, 30
SPARK_WIDTH, SPARK_HEIGHT = 110, 22


class Series(NamedTuple):
    """A line of a chart.

    Attributes:
        name (str): In the legend.
        x (Sequence[float]): Positions.
        y (Sequence[float | None]): Values; None is a gap.
        style (str): CSS class: 's0' to 's3', with ' dashed' or ' dots'.
        labels (Sequence[str]): Of the points, if they have any.
    """

    name: str
    x: Sequence[float]
    y: Sequence[Number]
    style: str = 's0'
    labels: Sequence[str] = ()


def line_chart(
    title: str,
    series: Sequence[Series],
    show: Callable[[float], str] = '{:.4g}'.format,
    x_name: str = 'iterations',
    show_x: Callable[[float], str] = '{:g}'.format,
) -> str:
    """A chart with a legend; '' if there is nothing to draw.

    Args:
        title (str): Heading.
        series (Sequence[Series]): Lines.
        show (Callable): Writes a value of the y axis.
        x_name (str): Of the x axis. Defaults to 'iterations'.
        show_x (Callable): Writes a value of the x axis.
    """
    ys = [y for line in series for y in line.y if y is not None]
    xs = [x for line in series for x in line.x]
    if not ys:
        return ''
    x_range = _widened(min(xs), max(xs))
    y_range = _widened(min(ys), max(ys))
    parts = [_grid(x_range, y_range, show, show_x, x_name)]
    parts += [_line(line, x_range, y_range, show) for line in series]
    legend = ''.join(
        f'<span class="key"><i class="{line.style}"></i>{escape(line.name)}'
        '</span>'
        for line in series
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )


def sparkline(
    values: Sequence[Number], low: float, high: float, style: str = 's0'
) -> str:
    """A line without axes, between two limits.

    Args:
        values (Sequence[float | None]): In equal distances.
        low (float): Value at the bottom.
        high (float): Value at the top.
        style (str): CSS class. Defaults to 's0'.
    """
    span = max(high - low, 1e-12)
    step = SPARK_WIDTH / max(len(values) - 1, 1)
    points = [
        (index * step, _at(min(max((value - low) / span, 0), 1)))
        for index, value in enumerate(values)
        if value is not None
    ]
    return (
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" '
        f'preserveAspectRatio="none"><polyline class="{style}" '
        f'points="{_points(points)}"/></svg>'
    )


def thinned(rows: Sequence, most: int) -> List:
    """At most so many of the rows, the last one among them."""
    step = max(math.ceil(len(rows) / most), 1)
    return list(rows[::-step][::-1])


def _at(portion: float) -> float:
    return 1 + (SPARK_HEIGHT - 2) * (1 - portion)


def _widened(low: float, high: float) -> Tuple[float, float]:
    if high - low > 1e-9 * max(abs(high), 1e-12):
        return low, high
    margin = abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _place(
    x: float,
    y: float,
    x_range: Tuple[float, float],
    y_range: Tuple[float, float],
) -> Tuple[float, float]:
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    across = (x - x_range[0]) / (x_range[1] - x_range[0])
    up = (y - y_range[0]) / (y_range[1] - y_range[0])
    return LEFT + wide * across, TOP + high * (1 - up)


def _grid(
    x_range: Tuple[float, float],
    y_range: Tuple[float, float],
    show: Callable[[float], str],
    show_x: Callable[[float], str],
    x_name: str,
) -> str:
    parts = []
    for index in range(5):
        value = y_range[0] + (y_range[1] - y_range[0]) * index / 4
        _, y = _place(x_range[0], value, x_range, y_range)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/><text class="tick" '
            f'x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f'{escape(show(value))}</text>'
        )
    for value, anchor in zip(x_range, ('start', 'end')):
        x, _ = _place(value, y_range[0], x_range, y_range)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 10}" '
            f'text-anchor="{anchor}">{escape(show_x(value))}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="tick" x="{middle}" y="{HEIGHT - 10}" '
        f'text-anchor="middle">{escape(x_name)}</text>'
    )
    return ''.join(parts)


def _line(
    line: Series,
    x_range: Tuple[float, float],
    y_range: Tuple[float, float],
    show: Callable[[float], str],
) -> str:
    known = [(x, y) for x, y in zip(line.x, line.y) if y is not None]
    points = [_place(x, y, x_range, y_range) for x, y in known]
    parts = [f'<polyline class="{line.style}" points="{_points(points)}"/>']
    if 'dots' in line.style or len(points) == 1:
        texts = line.labels or [show(y) for _, y in known]
        for (x, y), text in zip(points, texts):
            parts.append(
                f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" '
                f'r="3.5"><title>{escape(text)}</title></circle>'
            )
    return ''.join(parts)


def _points(points: Sequence[Tuple[float, float]]) -> str:
    return ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
