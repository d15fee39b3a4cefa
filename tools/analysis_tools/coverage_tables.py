"""Write the measured rows as tables that people read."""

from typing import Any, Callable, Dict, List, Sequence, Tuple

from coverage_models import SECTIONS, Case
from coverage_plain import PLAIN_SECTIONS

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
  over {structures} random structures of random weights. Their predicted MACs
  and parameters agree with those counted on the exported models to the
  number behind it.
- *ONNX*: the last of these exported models in ONNX Runtime against PyTorch.
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
  over {structures} random structures of random weights. Their predicted MACs
  and parameters agree with those counted on the exported models to the
  number behind it.
- *trained*: whether the last of these exported models took two steps of SGD
  with finite losses and gradients.
"""

TITLES = {
    'timm': 'timm',
    'torchvision': 'torchvision',
    'families': 'Classification',
    'detectors': 'Detection (outputs before post-processing)',
    'others': 'Models nobody tuned anything for',
}


def render(rows: Dict[str, Row], plain: bool = False) -> str:
    """All tables as one Markdown page.

    Args:
        rows (dict): Name → measured row.
        plain (bool): Of models without a config. Defaults to False.
    """
    parts = [_head(rows, PLAIN_HEAD if plain else HEAD)]
    sections = PLAIN_SECTIONS if plain else SECTIONS
    for section, cases in sections.items():
        found = [(n, c, rows[n]) for n, c in cases.items() if n in rows]
        if not found:
            continue
        columns = OTHER_COLUMNS if section == 'others' else COLUMNS
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
    numbers = {row['environment']['structures'] for row in rows.values()}
    return head.format(
        environment='\n'.join(sorted(environments)),
        structures='/'.join(map(str, sorted(numbers))),
    )


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
        for reason, layers in row.get('unsearched', {}).items():
            shown = ', '.join(f'`{layer}`' for layer in layers[:3])
            more = f' and {len(layers) - 3} more' if len(layers) > 3 else ''
            lines.append(f'- **{name}**: {shown}{more}: {reason}')
        for stage, reason in row.get('depth_reasons', {}).items():
            lines.append(f'- **{name}**, depth of `{stage}`: {reason}')
        is_plain = row.get('trained') is not None
        if row.get('agreement', {}).get('onnx_error') and not is_plain:
            error = row['agreement']['onnx_error']
            lines.append(f'- **{name}**, ONNX: {error}')
    return '\n'.join(lines or ['Nothing is left out.']) + '\n'


def _name(name: str, case: Case, row: Row) -> str:
    return f'{name}, {case.size}²'


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
    resources = max(found['macs'], found['params'])
    return f'{found["outputs"]:.0e}, {resources:.0e}'


def _onnx(name: str, case: Case, row: Row) -> str:
    value = row['agreement']['onnx']
    return 'no' if value is None else f'{value:.0e}'


def _verdict(name: str, case: Case, row: Row) -> str:
    """Whether a model works fully, partly, or stops with what message."""
    if 'failure' in row:
        return f'fails: {row["failure"]}'
    if 'error' in row:
        return f'stops: {row["error"]}'
    return 'partly' if row['unsearched'] else 'fully'


def _trained(name: str, case: Case, row: Row) -> str:
    return 'yes' if row['trained'] else 'no'


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
