"""What a result card shows, as plain texts and numbers."""

import os.path as osp
from typing import Any, Dict, List, NamedTuple, Tuple

from dms_mmrazor.search.record import SearchRecord
from dms_mmrazor.subnet import (
    LayerSlice,
    StageStructure,
    Structure,
    UnitStructure,
    load_structure,
)
from dms_mmrazor.supernet.resources import RESOURCES, format_resource

RESOURCE_NAMES = (
    'resource',
    'supernet',
    'subnet',
    'ratio',
    'target',
    'under target',
)


class Card(NamedTuple):
    """What a card is made of.

    Attributes:
        record (SearchRecord): Course of the search.
        structure (Structure): Found, or what an export now would keep.
        folder (str): Of the subnet.
    """

    record: SearchRecord
    structure: Structure
    folder: str

    @property
    def title(self) -> str:
        """The config's name, or that of the folder."""
        config = osp.basename(self.record.search.get('config') or '')
        return osp.splitext(config)[0] or osp.basename(self.folder)

    @property
    def is_trained(self) -> bool:
        """Whether gradients led the search; if not, structures were tried."""
        return self.record.search.get('by') != 'candidates'

    @property
    def status(self) -> str:
        """Whether the search is at its end."""
        total = self.record.search['total']
        done = self.record.iteration
        if not self.is_trained:
            state = 'Finished after' if self.record.finished else 'So far'
            return (
                f'{state} {done} of {total} structures that were tried: the '
                'best one.'
            )
        if self.record.finished:
            return f'Finished after {total} iterations.'
        phase = (
            self.record.steps[-1]['phase'] if self.record.steps else 'start'
        )
        return (
            f'Iteration {done} of {total} ({phase}); what an export now would '
            'keep, before it is rounded to the target.'
        )


def shown_structure(record: SearchRecord, folder: str) -> Structure:
    """The exported structure, or the present one of a running search."""
    if record.finished:
        return load_structure(osp.join(folder, 'subnet.yaml'))
    search = record.search
    stages = search['stages']
    number = sum(len(blocks) for _, blocks in stages)
    row = record.steps[-1] if record.steps else {}
    ratios = row.get('ratio') or [0.0] * len(search['units'])
    kept = row.get('blocks') or [1.0] * number
    units = tuple(
        UnitStructure(
            name,
            size,
            tuple(range(max(round((1 - ratio) * size), 0))),
            (LayerSlice(name, 0, size),),
            (),
        )
        for (name, size), ratio in zip(search['units'], ratios)
    )
    found, position = [], 0
    for name, blocks in stages:
        mask = kept[position : position + len(blocks)]
        position += len(blocks)
        remaining = tuple(b for b, m in zip(blocks, mask) if m >= 0.5)
        found.append(StageStructure(name, tuple(blocks), remaining))
    now = row.get('exported', search['supernet'])
    resources = {
        kind: {
            'supernet': whole,
            'subnet': now[kind],
            'ratio': now[kind] / whole,
            **_target_of(search, kind),
        }
        for kind, whole in search['supernet'].items()
    }
    return Structure(units, tuple(found), 0, 0, resources, {})


def _target_of(search: Dict[str, Any], kind: str) -> Dict[str, float]:
    targets = search['targets']
    return {'target': targets[kind]} if kind in targets else {}


def resource_name(kind: str) -> str:
    """How a kind of resource is called in a card."""
    resource = RESOURCES.get(kind)
    # A label that is but the unit is one of pictures.
    if resource is None or resource.label in ('', resource.base):
        return kind
    return resource.label


def resource_rows(card: Card) -> List[List[str]]:
    """Kind, supernet, subnet, ratio, target and how far under it."""
    rows = []
    for kind, row in card.structure.resources.items():
        target, under = '', ''
        if 'target' in row:
            target = format_resource(row['target'], kind)
            under = f'{1 - row["subnet"] / row["target"]:.2%}'
        rows.append(
            [
                resource_name(kind),
                format_resource(row['supernet'], kind),
                format_resource(row['subnet'], kind),
                f'{row["subnet"] / row["supernet"]:.2%}',
                target,
                under,
            ]
        )
    return rows


def resource_notes(card: Card) -> List[str]:
    """What the resources are of, and how time was measured."""
    size = card.record.search['input_size']
    notes = [f'MACs of one input of {size}.']
    if 'token_macs' in card.structure.resources:
        notes.append('MACs per token: these by the number of its tokens.')
    latency = card.structure.resources.get('latency')
    if latency:
        known = {'supernet', 'subnet', 'ratio', 'target'}
        more = ', '.join(
            f'{key} {value}'
            for key, value in latency.items()
            if key not in known
        )
        notes.append(
            'Latency as its table of measured layers predicts it'
            + (f' ({more}).' if more else '.')
        )
        notes.append(_measured_note(card))
    else:
        notes.append(
            'Time was not measured: `ResourceHook.latency_table` names a '
            'table of tools/profile_latency.py.'
        )
    return notes


def _measured_note(card: Card) -> str:
    """What a clock said of the whole models at the end of the search."""
    rows = [r for r in budget_rows(card) if r['name'] == 'subnet']
    times = rows[-1].get('measured') if rows else None
    if not times:
        when = 'on this machine: the table is of another device'
        when = when if card.record.finished else 'yet: that is done at the end'
        return f'Whole models were not measured {when}.'
    supernet, subnet = times['supernet'], times['subnet']
    return (
        'Measured at the end of the search, whole models in turns on this '
        f'machine: supernet {supernet:.3g} ms, subnet {subnet:.3g} ms '
        f'({subnet / supernet:.1%}).'
    )


def budget_rows(card: Card) -> List[Dict[str, Any]]:
    """Exported subnets, the last one of each name."""
    return list({row['name']: row for row in card.record.budgets}.values())


def budget_table(card: Card) -> Tuple[List[str], List[List[str]]]:
    """Names of the columns, and a row for each exported subnet."""
    rows = budget_rows(card)
    kinds = list(card.record.search['targets'])
    metrics = list(dict.fromkeys(m for row in rows for m in row['metrics']))
    names = ['folder', *kinds, *(f'{k} under' for k in kinds), *metrics]
    shown = []
    for row in rows:
        found = row['resources']
        shown.append(
            [
                row['name'],
                *(format_resource(found[k]['subnet'], k) for k in kinds),
                *(
                    f'{1 - found[k]["subnet"] / found[k]["target"]:.2%}'
                    for k in kinds
                ),
                *(
                    f'{row["metrics"][m]:.4g}' if m in row['metrics'] else ''
                    for m in metrics
                ),
            ]
        )
    return names, shown


def unsearched_rows(card: Card) -> List[List[str]]:
    """Layers and stages that are held on a side, and why."""
    search = card.record.search
    rows = [list(row) for row in search['unsearched']]
    rows += [list(row) for row in search['one_sided']]
    rows += [
        [name, 'depth is not searched', reason]
        for name, reason in search['stage_reasons'].items()
    ]
    return rows


def retraining_title(card: Card) -> str:
    """What comes after the search."""
    finetunes = card.record.search.get('finetunes')
    return 'Finetuning' if finetunes else 'Retraining'


def retraining(card: Card) -> Tuple[str, str]:
    """How to go on: a sentence, and a command for each exported subnet."""
    rows = budget_rows(card)
    commands = [row['retrain'] for row in rows if row.get('retrain')]
    # Of searches recorded before subnets had one each.
    commands = commands or [card.record.search.get('retrain')]
    if commands[-1]:
        sentence = 'Train the plain model from scratch:'
        if card.record.search.get('finetunes'):
            sentence = 'Finetune the plain model, with the teacher:'
        return sentence, '\n'.join(commands)
    lines = ['from dms_mmrazor import apply_structure', '']
    for row in rows or [{'name': 'subnet'}]:
        path = osp.join(card.folder, f'{row["name"]}.yaml')
        lines.append(f'model = apply_structure(build_model(), {path!r})')
    return (
        'Cut a new model and train it as you train the whole one:',
        '\n'.join(lines),
    )


def setting_rows(card: Card) -> List[List[str]]:
    """How the search was started: name and value."""
    search = card.record.search
    rows = [
        ['config', str(search.get('config') or 'none')],
        ['command', str(search.get('command') or '')],
        ['seed', str(search.get('seed'))],
        [
            'iterations' if card.is_trained else 'structures',
            str(search['total']),
        ],
        [
            'structure step' if card.is_trained else 'search',
            str(search['rule']),
        ],
        [
            'versions',
            ', '.join(
                f'{name} {search[name]}'
                for name in ('dms_mmrazor', 'torch', 'mmengine', 'mmrazor')
                if search.get(name)
            ),
        ],
    ]
    seconds = [row['seconds'] for row in card.record.steps]
    if seconds:
        rows.append(['time', f'{seconds[-1] / 60:.1f} min since its start'])
    return [row for row in rows if row[1]]
