"""The result card of a search: one HTML file, and the same as Markdown."""

import os.path as osp
from typing import Sequence

from dms_mmrazor.files import write_text
from dms_mmrazor.search.record import read_record
from dms_mmrazor.visualization.card_data import (
    RESOURCE_NAMES,
    Card,
    budget_rows,
    budget_table,
    resource_notes,
    resource_rows,
    retraining,
    retraining_title,
    setting_rows,
    shown_structure,
    unsearched_rows,
)
from dms_mmrazor.visualization.card_html import html_card
from dms_mmrazor.visualization.grouping import group_units

HTML_FILE = 'card.html'
MARKDOWN_FILE = 'card.md'


def write_card(folder: str) -> str:
    """Write ``card.html`` and ``card.md`` from what a search has recorded.

    Works while the search runs, too.

    Args:
        folder (str): Folder of the subnet, ``<work_dir>/subnet``.

    Returns:
        str: Path of ``card.html``.

    Raises:
        DMSError: If there is no record of a search.
    """
    record = read_record(folder)
    card = Card(record, shown_structure(record, folder), osp.abspath(folder))
    texts = {HTML_FILE: html_card(card), MARKDOWN_FILE: _markdown(card)}
    for name, text in texts.items():
        write_text(osp.join(folder, name), text)
    return osp.join(folder, HTML_FILE)


def _markdown(card: Card) -> str:
    parts = [f'# {card.title}', card.status, '## Resources']
    parts.append(_markdown_table(RESOURCE_NAMES, resource_rows(card)))
    parts += resource_notes(card)
    if len(budget_rows(card)) > 1:
        parts.append('One search, several budgets:')
        parts.append(_markdown_table(*budget_table(card)))
    if card.record.scores:
        metrics = card.record.scores[-1]['metrics']
        shown = ', '.join(f'{k} {v:.4g}' for k, v in metrics.items())
        what = 'Last validation of the supernet'
        if not card.is_trained:
            what = 'Last structure that was tried'
        parts.append(f'{what}: {shown}.')
    parts.append('## Structure')
    for group in group_units(card.structure):
        rows = [
            [bar.label, f'{bar.kept} / {bar.size}' if bar.kept else 'removed']
            for bar in group.bars
        ]
        kept = [label for label, is_kept in group.blocks if is_kept]
        title = f'### {group.title}'
        if group.blocks:
            title += f'\n\nBlocks kept: {", ".join(kept) or "none"} '
            title += f'({len(kept)} of {len(group.blocks)}).'
        parts.append(title)
        if rows:
            parts.append(_markdown_table(('unit', 'channels'), rows))
    rows = unsearched_rows(card)
    parts.append('## What was not searched')
    parts.append(
        _markdown_table(('layer or stage', 'input', 'output'), rows)
        if rows
        else 'Every layer is searched on both sides.'
    )
    if card.record.finished:
        sentence, command = retraining(card)
        title = retraining_title(card)
        parts.append(f'## {title}\n\n{sentence}\n\n```\n{command}\n```')
    parts.append('## Settings')
    parts.append(_markdown_table(('setting', 'value'), setting_rows(card)))
    return '\n\n'.join(parts) + '\n'


def _markdown_table(
    names: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    lines = [list(names), ['---'] * len(names), *rows]
    return '\n'.join(
        '| ' + ' | '.join(t.replace('|', '\\|') for t in row) + ' |'
        for row in lines
    )
