"""Write the measured rows as tables that people read."""

import re
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Sequence,
    Tuple,
)

from coverage_models import SECTIONS, Case
from coverage_plain import PLAIN_SECTIONS
from coverage_segmentation import POSE, SEGMENTATION

Row = Dict[str, Any]
Column = Tuple[str, Callable[[str, Case, Row], str]]

HEAD = """# What is searched in which architecture

Made by `python tools/analysis_tools/search_coverage.py`; the numbers are those
of `coverage.json` beside it.

{environment}

- *layers*: conv and linear layers with a searched input or output width, of
  all; the first layer's input (the image) and the last one's output (the
  classes) are never searched.
- *elements*: channels, heads and dims of all units, and blocks of all stages.
- *MACs*: of the supernet, then the smallest that can be reached.
- *mmengine*: the same model by mmengine's counter, convolutions, linear
  layers and matrix products. Its total (`get_model_complexity_info`) also
  contains norms, pooling and resizing, and lacks the two products of torch's
  fused attention, for which it has no handle; to compare the same thing,
  attention is written out while it counts. Behind it the difference to our
  count.
- *masked / exported*: largest relative difference between the outputs of the
  hard-masked supernet and of the exported model, fp32, in evaluation mode,
  over as many random structures of random weights as stand in brackets; what
  differs by more than 1e-4 is computed again in double precision, as rounding
  may decide which points are neighbors or which objects are shown. Their
  predicted MACs and parameters agree with those counted on the exported models
  to the number behind it.
- *ONNX*: the last of these exported models in ONNX Runtime against PyTorch,
  fp32 alone.
- *trained*: whether the last of these exported models took two steps of SGD
  with finite losses and gradients: of its own loss on made-up data, or of the
  squares of its outputs.
- *works*: `partly` where a layer is searched on neither side. Where the first
  attempt stopped with layers to exclude, the command has excluded them, as the
  error says, and the row is what that reached.
"""

PLAIN_HEAD = """# What is searched in models of timm and torchvision

Made by `python tools/analysis_tools/search_coverage.py --plain`; the numbers
are those of `coverage_plain.json` beside it. Each model is built by its
library with new weights for 10 classes and given to `dms_mmrazor.Search`.

{environment}

- *layers*: conv and linear layers with a searched input or output width, of
  all; the first layer's input (the image) and the last one's output (the
  classes) are never searched.
- *elements*: channels, heads and dims of all units, and blocks of all stages.
- *MACs*: of the supernet, then the smallest that can be reached.
- *masked / exported*: largest relative difference between the outputs of the
  hard-masked supernet and of the exported model, fp32, in evaluation mode,
  over as many random structures of random weights as stand in brackets; what
  differs by more than 1e-4 is computed again in double precision, as rounding
  may decide which points are neighbors or which objects are shown. Their
  predicted MACs and parameters agree with those counted on the exported models
  to the number behind it.
- *trained*: whether the last of these exported models took two steps of SGD
  with finite losses and gradients: of its own loss on made-up data, or of the
  squares of its outputs.
"""

TITLES = {
    'timm': 'timm',
    'torchvision': 'torchvision',
    'families': 'Classification',
    'detectors': 'Detection (outputs before post-processing)',
    'others': 'Models nobody tuned anything for',
    'dense': 'Detectors nobody tuned anything for',
    'sound': 'Sound',
    'segmentation': 'Segmentation (mmsegmentation)',
    'pose': 'Pose (mmpose)',
}
SEGMENTATION_SECTIONS = {'segmentation': SEGMENTATION, 'pose': POSE}


STRANGERS = ('others', 'dense')
SEGMENTATION_TITLE = (
    '# What is searched in models of mmsegmentation and mmpose'
)
GROUP_COMMAND = 'search_coverage.py --group\nsegmentation`'


def render(rows: Dict[str, Row], plain: bool = False, group: str = '') -> str:
    """All tables as one Markdown page.

    Args:
        rows (dict): Name → measured row.
        plain (bool): Of models without a config. Defaults to False.
        group (str): 'segmentation' for the page of these. Defaults to ''.
    """
    head = PLAIN_HEAD if plain else HEAD
    if group:
        head = SEGMENTATION_TITLE + head[head.index('\n') :]
        head = head.replace('search_coverage.py`', GROUP_COMMAND)
        head = head.replace('coverage.json', f'coverage_{group}.json')
    parts = [_head(rows, head)]
    sections = PLAIN_SECTIONS if plain else SECTIONS
    sections = SEGMENTATION_SECTIONS if group else sections
    for section, cases in sections.items():
        found = [(n, c, rows[n]) for n, c in cases.items() if n in rows]
        if not found:
            continue
        columns = OTHER_COLUMNS if section in STRANGERS else COLUMNS
        columns = PLAIN_COLUMNS if plain else columns
        parts.append(f'## {TITLES[section]}\n\n{_table(columns, found)}')
        parts.append(f'### What is not searched\n\n{_reasons(found)}')
    return '\n'.join(parts)


def _head(rows: Dict[str, Row], head: str) -> str:
    """What was measured where."""
    environments = {
        ', '.join(
            f'{key} {value}'
            for key, value in row['environment'].items()
            if key not in ('structures', 'machine')
        )
        + f'; {row["environment"]["machine"]}'
        for row in rows.values()
    }
    return head.format(environment='\n'.join(sorted(environments)))


def _table(
    columns: Sequence[Column], found: Sequence[Tuple[str, Case, Row]]
) -> str:
    lines = [
        '| ' + ' | '.join(title for title, _ in columns) + ' |',
        '|---' * len(columns) + '|',
    ]
    for entry in found:
        cells = [_cell(write, *entry) for _, write in columns]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def _cell(write: Callable[..., str], name: str, case: Case, row: Row) -> str:
    """A cell; that of a row without measurement is empty."""
    try:
        return write(name, case, row)
    except KeyError:
        return ''


def _reasons(found: Sequence[Tuple[str, Case, Row]]) -> str:
    """Every reason once for each architecture, with its layers."""
    lines: List[str] = []
    for name, case, row in found:
        if case.note:
            lines.append(f'- **{name}**: {case.note}')
        if 'excluded' in row:
            lines.append(f'- **{name}**: stopped at first: {row["error"]}')
        unsearched = row.get('unsearched', {}).items()
        pairs = [
            (layer, why) for why, layers in unsearched for layer in layers
        ]
        for shown, why in _families(pairs):
            lines.append(f'- **{name}**: {shown}: {why}')
        for shown, why in _families(row.get('depth_reasons', {}).items()):
            lines.append(f'- **{name}**, depth of {shown}: {why}')
        error = row.get('agreement', {}).get('onnx_error')
        if error and error != 'not tried':
            # The rest names a node of the file.
            error = error.partition('[Caused by')[0].strip()
            lines.append(f'- **{name}**, ONNX: {error}')
    return '\n'.join(lines or ['Nothing is left out.']) + '\n'


def _families(pairs: Iterable[Tuple[str, str]]) -> Iterator[Tuple[str, str]]:
    """Names and reasons that differ in numbers alone, once.

    Args:
        pairs (Iterable): (name of a layer or stage, reason).

    Yields:
        tuple: (their names with ``*`` and how many these are, the reason).
    """
    together: Dict[str, Dict[str, List[str]]] = {}
    reasons: Dict[str, List[str]] = {}
    for name, why in pairs:
        kind = together.setdefault(_wide(why), {})
        kind.setdefault(_wide(name), []).append(name)
        reasons.setdefault(_wide(why), []).append(why)
    for wide, kinds in together.items():
        shown = [
            f'`{names[0]}`' if len(names) == 1 else f'`{kind}` ({len(names)})'
            for kind, names in kinds.items()
        ]
        more = f' and {len(shown) - 4} more kinds' if len(shown) > 4 else ''
        one = len(set(reasons[wide])) == 1
        yield ', '.join(shown[:4]) + more, reasons[wide][0] if one else wide


def _wide(text: str) -> str:
    """Numbers within names replaced; those that count something stay."""
    return re.sub(r'(?<=\.)\d+|(?<=[a-z_])\d+', '*', text)


def _name(name: str, case: Case, row: Row) -> str:
    if getattr(case, 'library', '') == 'sound':
        return f'{name}, {case.size} samples'
    frames = '8 × ' if len(getattr(case, 'shape', ())) == 5 else ''
    return f'{name}, {frames}{case.size}²'


def _layers(name: str, case: Case, row: Row) -> str:
    return f'{row["searched"]} / {row["layers"]}'


def _units(name: str, case: Case, row: Row) -> str:
    return str(row['units'])


def _stages(name: str, case: Case, row: Row) -> str:
    return str(row['stages'])


def _elements(name: str, case: Case, row: Row) -> str:
    return f'{row["channels"]:,} + {row["blocks"]}'


def _macs(name: str, case: Case, row: Row) -> str:
    return f'{_giga(row["macs"])}, {_giga(row["reachable"][0])}'


def _giga(macs: float) -> str:
    return f'{macs / 1e9:.3f} G' if macs >= 1e8 else f'{macs / 1e6:.2f} M'


def _mmengine(name: str, case: Case, row: Row) -> str:
    counted = row['mmengine_products']
    return f'{_giga(counted)}, {100 * (row["macs"] / counted - 1):.2f} %'


def _agreement(name: str, case: Case, row: Row) -> str:
    found = row['agreement']
    errors = (
        f'{found["outputs"]:.0e}, {max(found["macs"], found["params"]):.0e}'
    )
    return f'{errors} ({found["structures"]})'


def _onnx(name: str, case: Case, row: Row) -> str:
    value = row['agreement']['onnx']
    return 'no' if value is None else f'{value:.0e}'


def _verdict(name: str, case: Case, row: Row) -> str:
    """Whether a model works fully, partly, or stops with what message."""
    if 'failure' in row:
        return f'fails: {row["failure"]}'
    if 'error' in row and 'units' not in row:
        return f'stops: {row["error"]}'
    verdict = 'partly' if row['unsearched'] else 'fully'
    if 'excluded' in row:
        verdict += f', by `exclude={row["excluded"]}` as its error says'
    return verdict


def _trained(name: str, case: Case, row: Row) -> str:
    if 'untrained' not in row and row['units']:
        return 'not tried'
    if row['untrained']:
        return f'no: {row["untrained"]}'
    return 'own loss' if row['own_loss'] else 'outputs'


COLUMNS: List[Column] = [
    ('model, input', _name),
    ('layers', _layers),
    ('units', _units),
    ('stages', _stages),
    ('elements', _elements),
    ('MACs', _macs),
    ('mmengine', _mmengine),
    ('masked / exported', _agreement),
    ('ONNX', _onnx),
    ('trained', _trained),
]

OTHER_COLUMNS: List[Column] = [
    ('model, input', _name),
    ('works', _verdict),
    *COLUMNS[1:4],
    *COLUMNS[6:],
]

PLAIN_COLUMNS: List[Column] = [
    *OTHER_COLUMNS[:2],
    *COLUMNS[1:6],
    COLUMNS[7],
    ('trained', _trained),
]
