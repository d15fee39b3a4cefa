"""Draw how wide and how deep a found subnet is."""

from typing import Any, List

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dms_mmrazor.files import written_at_once
from dms_mmrazor.subnet import Structure
from dms_mmrazor.supernet.resources import RESOURCES
from dms_mmrazor.visualization.grouping import Bar, Group, group_units

KEPT, SUPERNET, REMOVED = '#2b6c99', '#e3e7ea', '#b4bcc2'
TEXT, FAINT = '#20262b', '#77828a'

ROW = 0.2  # inches
WIDTH = 9.0  # inches
TOP, BOTTOM = 0.8, 0.45  # inches
BLOCKS_PER_LINE = 8
LEFT = -0.425  # left margin, in units of a bar


def plot_subnet(structure: Structure, title: str = 'Found subnet') -> Figure:
    """Bars of the widths and squares of the blocks, stage by stage.

    Args:
        structure (Structure): What a search found.
        title (str): Heading of the picture. Defaults to 'Found subnet'.

    Returns:
        Figure: It belongs to no window and needs no display.
    """
    groups = group_units(structure)
    rows = sum(_rows(group) for group in groups)
    height = TOP + BOTTOM + ROW * rows
    figure = Figure(figsize=(WIDTH, height), facecolor='white')
    FigureCanvasAgg(figure)
    bottom, span = BOTTOM / height, ROW * rows / height
    widths = figure.add_axes([0.2, bottom, 0.5, span])
    blocks = figure.add_axes([0.72, bottom, 0.25, span])
    _prepare(widths, blocks, rows)
    offset = 0
    for index, group in enumerate(groups):
        for axes in (widths, blocks):
            _draw_band(axes, index, offset, _rows(group))
        _draw_widths(widths, group, offset)
        _draw_blocks(blocks, group, offset)
        offset += _rows(group)
    _write_heading(figure, structure, title, height)
    return figure


def rgb_image(figure: Figure, dpi: int = 80) -> np.ndarray:
    """A picture as an array, for the backends of a visualizer.

    Args:
        figure (Figure): As :func:`plot_subnet` returns it.
        dpi (int): Points per inch. Defaults to 80.

    Returns:
        np.ndarray: RGB, uint8, shape [H, W, 3].
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_plot(figure: Figure, path: str, dpi: int = 100) -> None:
    """Write a picture, in the format that its file name ends with.

    Args:
        figure (Figure): As :func:`plot_subnet` returns it.
        path (str): The file: .png, .svg or .pdf.
        dpi (int): Points per inch. Defaults to 100.
    """
    kind = path.rpartition('.')[2].lower()
    with written_at_once(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi)


def _rows(group: Group) -> int:
    """Rows of a group: its title, its bars, at least one, and a gap."""
    lines = -(-len(group.blocks) // BLOCKS_PER_LINE)
    return 2 + max(len(group.bars), 2 * lines, 1)


def _prepare(widths: Axes, blocks: Axes, rows: int) -> None:
    for axes in (widths, blocks):
        axes.set_ylim(rows, 0)
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    widths.set_xlim(0, 1.2)
    widths.set_xticks([0, 0.25, 0.5, 0.75, 1])
    widths.set_xticklabels(['0', '25', '50', '75', '100 %'])
    widths.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    widths.grid(axis='x', color='white', linewidth=0.8)
    blocks.set_xlim(0, BLOCKS_PER_LINE + 0.2)
    blocks.set_xticks([])


def _draw_band(axes: Axes, index: int, offset: int, rows: int) -> None:
    """A line above every stage but the first."""
    if index:
        left = LEFT if axes.get_xlim()[1] < 2 else 0
        axes.plot(
            [left, axes.get_xlim()[1]],
            [offset, offset],
            color=SUPERNET,
            linewidth=1,
            clip_on=False,
        )


def _draw_widths(axes: Axes, group: Group, offset: int) -> None:
    """Title, bars and numbers of one stage."""
    _label(axes, LEFT, offset + 0.85, group.title, weight='bold')
    centers = [offset + 1.5 + index for index in range(len(group.bars))]
    fractions = [bar.kept / bar.size for bar in group.bars]
    whole = [1.0] * len(centers)
    colors = [SUPERNET if bar.kept else 'white' for bar in group.bars]
    edges = ['none' if bar.kept else REMOVED for bar in group.bars]
    axes.barh(
        centers,
        whole,
        height=0.72,
        color=colors,
        edgecolor=edges,
        linestyle=(0, (2, 1.5)),
        zorder=0,
    )
    axes.barh(centers, fractions, height=0.72, color=KEPT, zorder=2)
    for center, bar in zip(centers, group.bars):
        _label(axes, -0.015, center, bar.label, align='right')
        _label(axes, 1.015, center, _numbers(bar), color=FAINT)


def _numbers(bar: Bar) -> str:
    return f'{bar.kept} / {bar.size}' if bar.kept else 'removed'


def _draw_blocks(axes: Axes, group: Group, offset: int) -> None:
    """A square for every removable block of one stage."""
    if not group.blocks:
        return
    kept = sum(is_kept for _, is_kept in group.blocks)
    text = f'{kept} of {len(group.blocks)} removable blocks kept'
    _label(axes, 0, offset + 0.85, text, color=FAINT)
    for index, (label, is_kept) in enumerate(group.blocks):
        line, column = divmod(index, BLOCKS_PER_LINE)
        _draw_block(axes, column, offset + 1.5 + 2 * line, label, is_kept)


def _draw_block(
    axes: Axes, left: float, top: float, label: str, is_kept: bool
) -> None:
    box = FancyBboxPatch(
        (left + 0.1, top + 0.1),
        0.75,
        1.15,
        boxstyle='round,pad=0,rounding_size=0.12',
        facecolor=KEPT if is_kept else 'white',
        edgecolor=KEPT if is_kept else REMOVED,
        linestyle='-' if is_kept else (0, (2, 1.5)),
        linewidth=1,
    )
    axes.add_patch(box)
    color = 'white' if is_kept else REMOVED
    _label(axes, left + 0.475, top + 0.68, label, color=color, align='center')


def _write_heading(
    figure: Figure, structure: Structure, title: str, height: float
) -> None:
    figure.text(
        0.02, 1 - 0.25 / height, title, size=12, weight='bold', color=TEXT
    )
    line = '   '.join(_resource_texts(structure))
    figure.text(0.02, 1 - 0.48 / height, line, size=9, color=FAINT)
    note = 'channels kept, in % of the supernet'
    figure.text(0.2, 0.08 / height, note, size=8, color=FAINT)
    if structure.stages:
        note = 'filled: kept, dashed: removed'
        figure.text(0.72, 0.08 / height, note, size=8, color=FAINT)


def _resource_texts(structure: Structure) -> List[str]:
    """Like '1.00 G of 4.09 G MACs (24.4 %)'."""
    texts = []
    for kind, row in structure.resources.items():
        name = RESOURCES[kind].label if kind in RESOURCES else ''
        ratio = row['subnet'] / row['supernet']
        texts.append(
            f'{_human(row["subnet"])} of {_human(row["supernet"])} '
            f'{name or kind} ({ratio:.1%})'
        )
    return texts


def _human(value: float) -> str:
    for factor, suffix in ((1e9, ' G'), (1e6, ' M'), (1e3, ' K')):
        if value >= factor:
            return f'{value / factor:.3g}{suffix}'
    return f'{value:.3g}'


def _label(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    color: str = TEXT,
    align: str = 'left',
    **kwargs: Any,
) -> None:
    axes.text(x, y, text, size=8, color=color, ha=align, va='center', **kwargs)
