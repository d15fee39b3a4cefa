"""Tables and the plot of a comparison of methods."""

import math
from typing import Any, Dict, List, Mapping, Sequence

from dms_mmrazor.baselines.runs import Record

Row = Dict[str, Any]
"""A method at a target: scores, their spread and what they have cost."""


def table(rows: Sequence[Row], score: str = 'score') -> str:
    """Markdown of :func:`summarize`.

    Args:
        rows (Sequence[dict]): The rows.
        score (str): What the score is. Defaults to 'score'.
    """
    heads = [
        'target',
        'method',
        f'{score}: mean ± std',
        'each seed',
        'against uniform ± error',
        'resource',
        'images of the search',
        's of the search',
        's of the training',
        'settings',
    ]
    lines = []
    # Some metrics are percent, some portions.
    percent = any(value > 1.5 for row in rows for value in row['scores'])
    digits = 2 if percent else 4
    for row in rows:
        gain = '–'
        if row.get('gain') is not None and row['method'] != 'uniform':
            gain = f'{row["gain"]:+.{digits}f}'
            gain += _spread(row['error'], digits)
        lines.append(
            [
                f'{row["target"]:g}',
                row['method'],
                f'{row["mean"]:.{digits}f}{_spread(row["std"], digits)}',
                ', '.join(f'{value:.{digits}f}' for value in row['scores']),
                gain,
                f'{row["resource"]:.4f}',
                f'{row["search_images"]:,.0f}',
                f'{row["search_seconds"]:.0f}',
                f'{row["train_seconds"]:.0f}',
                _options(row['options']) or '–',
            ]
        )
    return _markdown(heads, lines)


def _spread(value: float, digits: int) -> str:
    """What follows a mean; nothing for a single seed."""
    return '' if math.isnan(value) else f' ± {value:.{digits}f}'


def grid_table(tried: Sequence[Record]) -> str:
    """Markdown of settings that were tried, with validation scores.

    Args:
        tried (Sequence[dict]): Records of the runs that tried them.
    """
    if not tried:
        return ''
    lines = []
    for record in tried:
        settings = record['settings']
        lines.append(
            [
                f'{settings["target"]:g}',
                settings['method'],
                _options(record['result']['options']),
                f'{record["result"]["val"]:.2f}',
            ]
        )
    return _markdown(['target', 'method', 'settings', 'validation'], lines)


def _markdown(heads: List[str], rows: List[List[str]]) -> str:
    lines = [heads, ['---'] * len(heads), *rows]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def _options(options: Mapping[str, Any]) -> str:
    return ', '.join(f'{key}={value}' for key, value in options.items())


def plot(rows: Sequence[Row], path: str, score: str = 'score') -> None:
    """Score against resource, and against the cost of finding and training.

    Args:
        rows (Sequence[dict]): Of :func:`summarize`.
        path (str): Image to write.
        score (str): What the score is. Defaults to 'score'.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for method in dict.fromkeys(row['method'] for row in rows):
        mine = [row for row in rows if row['method'] == method]
        means = [row['mean'] for row in mine]
        errors = [
            0.0 if math.isnan(row['std']) else row['std'] for row in mine
        ]
        costs = [row['search_seconds'] + row['train_seconds'] for row in mine]
        resources = [row['resource'] for row in mine]
        left.errorbar(
            resources, means, errors, marker='o', capsize=2, label=method
        )
        right.errorbar(costs, means, errors, fmt='o', capsize=2, label=method)
    left.set_xlabel('resource relative to the supernet')
    right.set_xlabel('processor seconds of search and training')
    left.set_ylabel(score)
    right.legend(fontsize='small')
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
