"""A search space in words and numbers, before anything is trained."""

from typing import List, Mapping

from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.supernet.choice_space import ChoiceSpace
from dms_mmrazor.supernet.resources import RESOURCES


def describe_supernet(algorithm: DMSAlgorithm, divisor: int = 1) -> List[str]:
    """What is searched, what it costs and what can be reached.

    Args:
        algorithm (DMSAlgorithm): A search.
        divisor (int): Of the exported widths. Defaults to 1.

    Returns:
        list[str]: Lines to print.
    """
    mutator = algorithm.mutator
    space = ChoiceSpace(mutator)
    size = '×'.join(str(n) for n in mutator.analyzer.input_size[1:])
    lines = [
        str(mutator.report()),
        '',
        f'About 10^{space.log10_size:.0f} subnets (numbers of channels and '
        'blocks).',
        f'Resources for an input of {size}:',
        f'{"":8}{"supernet":>18}{"largest":>18}{"smallest":>18}'
        f'{f"smallest, by {divisor}":>18}',
    ]
    for kind, whole in mutator.table.full.items():
        smallest, largest = mutator.table.range(kind)
        exported, _ = mutator.table.range(kind, divisor)
        row = (whole, largest, smallest, exported)
        shown = [f'{RESOURCES[kind].in_full(number):>18}' for number in row]
        lines.append(f'{kind:8}' + ''.join(shown))
    return lines


def describe_targets(
    algorithm: DMSAlgorithm, targets: Mapping[str, float]
) -> List[str]:
    """One line for each target; they have been found to be reachable."""
    full = algorithm.mutator.table.full
    return [
        f'Target: {RESOURCES[kind].in_full(target)} {kind}, '
        f'{target / full[kind]:.3f} of the supernet: reachable.'
        for kind, target in targets.items()
    ]


def describe_parts(mutator: DMSMutator, by: str = 'stage') -> List[str]:
    """What each stage or layer contributes to the resources.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        by (str): 'stage' or 'layer'. Defaults to 'stage'.

    Returns:
        list[str]: Lines to print, with portions of the whole.
    """
    kinds = list(mutator.table.full)
    parts = {kind: mutator.table.parts(kind, by) for kind in kinds}
    names = list(dict.fromkeys(name for kind in kinds for name in parts[kind]))
    width = max(len(name) for name in [by, *names]) + 1
    lines = [f'{by:{width}}' + ''.join(f'{kind:>26}' for kind in kinds)]
    for name in names:
        cells = ''.join(
            _with_share(parts[kind].get(name, 0.0), kind, parts[kind])
            for kind in kinds
        )
        lines.append(f'{name or "others":{width}}{cells}')
    return lines


def _with_share(value: float, kind: str, parts: Mapping[str, float]) -> str:
    share = value / sum(parts.values())
    return f'{RESOURCES[kind].in_full(value):>18}{share:>8.1%}'
