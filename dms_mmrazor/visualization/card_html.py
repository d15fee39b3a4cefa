"""A result card as one HTML file that needs no network."""

from html import escape
from typing import Any, Dict, List, Sequence, Tuple

from dms_mmrazor.subnet import UnitStructure
from dms_mmrazor.subnet.structure import split_name
from dms_mmrazor.supernet.resources import format_resource
from dms_mmrazor.visualization.card_data import (
    RESOURCE_NAMES,
    Card,
    budget_rows,
    budget_table,
    resource_name,
    resource_notes,
    resource_rows,
    retraining,
    retraining_title,
    setting_rows,
    unsearched_rows,
)
from dms_mmrazor.visualization.card_style import STYLE
from dms_mmrazor.visualization.charts import (
    Series,
    line_chart,
    sparkline,
    thinned,
)
from dms_mmrazor.visualization.grouping import Group, group_units

_POINTS = 60
"""Points of a small line beside a unit."""

_LINES = (
    'Lines: pruned part of the unit (0 to 100 %) and price over the '
    'iterations. Price: task loss that a unit of log-resource saves there, '
    'against the usual one at the end of the search, which is 1: dear units '
    'are kept.'
)

_LINES_TRIED = (
    'Lines: pruned part of the unit (0 to 100 %) in the best structure so '
    'far. Structures were tried, no gradient led the search: there are no '
    'prices.'
)


def html_card(card: Card) -> str:
    """The page."""
    sections = [
        _resources_html(card),
        _charts_html(card),
        _units_html(card),
        _unsearched_html(card),
        _retraining_html(card),
        _settings_html(card),
    ]
    body = '\n'.join(f'<section>{text}</section>' for text in sections if text)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, '
        'initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f'<title>{escape(card.title)}</title>\n<style>{STYLE}</style></head>\n'
        f'<body><main><h1>{escape(card.title)}</h1>'
        f'<p class="faint">{escape(card.status)}</p>\n{body}\n'
        '</main></body></html>\n'
    )


def _resources_html(card: Card) -> str:
    text = '<h2>Resources</h2>' + _table(
        RESOURCE_NAMES, resource_rows(card), numbers=range(1, 6)
    )
    notes = resource_notes(card)
    text += ''.join(f'<p class="faint">{escape(note)}</p>' for note in notes)
    rows = budget_rows(card)
    if len(rows) > 1:
        names, shown = budget_table(card)
        text += '<h3>One search, several budgets</h3>'
        text += _table(names, shown, numbers=range(1, len(names)))
    return text


def _charts_html(card: Card) -> str:
    record = card.record
    steps = thinned(record.steps, 300)
    charts = []
    x = [row['iteration'] for row in steps]
    for kind, whole in record.search['supernet'].items():
        exported = [row['exported'][kind] for row in steps]
        lines = [Series('best so far', x, exported)]
        if card.is_trained:
            soft = [row['current'][kind] for row in steps]
            lines = [
                Series('soft masks', x, soft),
                Series('if exported then', x, exported, 's2'),
            ]
        if kind in record.search['targets']:
            aims = [row['target'].get(kind) for row in steps]
            lines.insert(0, Series('target', x, aims, 's1 dashed'))
        charts.append(
            line_chart(
                f'{resource_name(kind)} (supernet '
                f'{format_resource(whole, kind)})',
                lines,
                lambda value, kind=kind: format_resource(value, kind),
            )
        )
    losses = list(dict.fromkeys(n for row in steps for n in row['losses']))
    if 'task' in losses:
        values = [row['losses'].get('task') for row in steps]
        charts.append(
            line_chart('Task loss', [Series('task loss', x, values)])
        )
    charts.append(_validation_chart(card))
    charts.append(_family_chart(card))
    found = ''.join(charts)
    if not found:
        return ''
    return f'<h2>Course</h2><div class="charts">{found}</div>'


def _validation_chart(card: Card) -> str:
    record = card.record
    if not record.scores:
        return ''
    names = list(record.scores[-1]['metrics'])[:3]
    x = [row['iteration'] for row in record.scores]
    lines = [
        Series(
            name,
            x,
            [row['metrics'].get(name) for row in record.scores],
            f's{index} dots',
        )
        for index, name in enumerate(names)
    ]
    title = 'Validation of the supernet with hard masks'
    if not card.is_trained:
        title = 'Score of each structure, and the best so far'
    return line_chart(title, lines)


def _family_chart(card: Card) -> str:
    rows = [row for row in budget_rows(card) if row['metrics']]
    if len(rows) < 2:
        return ''
    kind = next(iter(card.record.search['targets']))
    metric = next(iter(rows[0]['metrics']))
    rows.sort(key=lambda row: row['resources'][kind]['subnet'])
    line = Series(
        metric,
        [row['resources'][kind]['subnet'] for row in rows],
        [row['metrics'].get(metric) for row in rows],
        's0 dots',
        [f'{r["name"]}: {r["metrics"].get(metric)}' for r in rows],
    )
    return line_chart(
        'Exported subnets, before retraining',
        [line],
        x_name=resource_name(kind),
        show_x=lambda value: format_resource(value, kind),
    )


def _units_html(card: Card) -> str:
    """Structure before and after, and how ratios and prices came there."""
    search, steps = card.record.search, thinned(card.record.steps, _POINTS)
    names = [name for name, _ in [*search['units'], *search['stages']]]
    courses = {
        name: (
            [row['ratio'][index] for row in steps],
            [row['price'][index] for row in steps],
        )
        for index, name in enumerate(names)
    }
    scale = _price_scale(steps)
    lines, price = _LINES_TRIED, ''
    if card.is_trained:
        lines, price = _LINES, 'price'
    parts = [
        '<h2>Structure</h2><p class="faint">Bars: channels kept of the '
        f'supernet. {lines}</p>'
        '<div role="img" aria-label="Structure before and after">'
    ]
    by_stage: Dict[str, List[UnitStructure]] = {}
    for unit in card.structure.units:
        by_stage.setdefault(split_name(unit.name)[0], []).append(unit)
    groups = group_units(card.structure)
    listed = [*by_stage.values(), *([] for _ in groups[len(by_stage) :])]
    parts.append(
        '<div class="unit head"><span>unit</span><span>kept</span>'
        '<span class="n">channels</span><span>pruned part</span>'
        f'<span>{price}</span><span class="n">{price}</span></div>'
    )
    for group, units in zip(groups, listed):
        parts.append(_group_html(group, units, courses, scale))
    for stage in card.structure.stages:
        depth = len(stage.kept), len(stage.blocks)
        label = f'depth of {stage.name}'
        parts.append(_row_html(label, depth, courses[stage.name], scale))
    return ''.join(parts) + '</div>'


def _group_html(
    group: Group,
    units: Sequence[UnitStructure],
    courses: Dict[str, Tuple[List[float], List[float]]],
    scale: float,
) -> str:
    parts = [f'<h3>{escape(group.title)}</h3>']
    if group.blocks:
        squares = ''.join(
            f'<span class="block{"" if kept else " gone"}">{escape(label)}'
            '</span>'
            for label, kept in group.blocks
        )
        kept = sum(is_kept for _, is_kept in group.blocks)
        parts.append(
            f'<div class="blocks">{squares}<span class="faint">{kept} of '
            f'{len(group.blocks)} removable blocks kept</span></div>'
        )
    for bar, unit in zip(group.bars, units):
        course = courses.get(unit.name, ([], []))
        parts.append(_row_html(bar.label, (bar.kept, bar.size), course, scale))
    return ''.join(parts)


def _row_html(
    label: str,
    kept: Tuple[int, int],
    course: Tuple[List[float], List[float]],
    scale: float,
) -> str:
    ratios, prices = course
    shown = [None if p is None else p / scale for p in prices]
    price = shown[-1] if shown else None
    if kept[0]:
        width = 100 * kept[0] / kept[1]
        bar = f'<div class="track"><i style="width:{width:.1f}%"></i></div>'
        text = f'{kept[0]} / {kept[1]}'
    else:
        bar, text = '<div class="track gone"></div>', 'removed'
    number = '' if price is None else f'{price:.1f}'
    return (
        f'<div class="unit"><span title="{escape(label)}">{escape(label)}'
        f'</span>{bar}<span class="n">{text}</span>'
        f'{sparkline(ratios, 0, 1)}{sparkline(shown, -1, 3, "s1")}'
        f'<span class="n last">{number}</span></div>'
    )


def _price_scale(steps: Sequence[Dict[str, Any]]) -> float:
    """The usual price at the end: mean of the sizes of those known."""
    last = [p for p in (steps[-1]['price'] if steps else []) if p]
    return sum(abs(p) for p in last) / len(last) if last else 1.0


def _unsearched_html(card: Card) -> str:
    rows = unsearched_rows(card)
    search = card.record.search
    searched = search['layers'] - len(search['unsearched'])
    line = (
        f'{searched} of {search["layers"]} conv and linear layers are '
        'searched on their input or output side.'
    )
    if not rows:
        return f'<h2>What was not searched</h2><p>{line}</p>'
    table = _table(('layer or stage', 'input', 'output'), rows)
    return (
        f'<h2>What was not searched, and why</h2><p>{line}</p><details>'
        f'<summary>{len(rows)} layers and stages</summary>{table}</details>'
    )


def _retraining_html(card: Card) -> str:
    if not card.record.finished:
        return ''
    sentence, command = retraining(card)
    title = retraining_title(card)
    return f'<h2>{title}</h2><p>{sentence}</p><pre>{escape(command)}</pre>'


def _settings_html(card: Card) -> str:
    text = '<h2>Settings</h2>' + _table(('', ''), setting_rows(card))
    config = card.record.search.get('config_text')
    if config:
        text += (
            '<details><summary>The whole config</summary>'
            f'<pre>{escape(config)}</pre></details>'
        )
    return text


def _table(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[int] = (),
) -> str:
    def cell(tag: str, index: int, text: str) -> str:
        kind = ' class="n"' if index in numbers else ''
        return f'<{tag}{kind}>{escape(text)}</{tag}>'

    head = ''
    if any(names):
        head = ''.join(cell('th', i, name) for i, name in enumerate(names))
    body = ''.join(
        '<tr>' + ''.join(cell('td', i, t) for i, t in enumerate(row)) + '</tr>'
        for row in rows
    )
    head = f'<tr>{head}</tr>' if head else ''
    return f'<div class="scroll"><table>{head}{body}</table></div>'
