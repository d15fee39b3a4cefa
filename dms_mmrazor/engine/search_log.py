"""What a search says of itself in the log."""

from typing import (
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

from mmengine.runner import Runner

from dms_mmrazor.core import Phase
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.subnet import Structure
from dms_mmrazor.supernet.resources import format_resource


class Losses(NamedTuple):
    """Losses of a search.

    Attributes:
        task (float): Everything but the resource losses.
        resources (dict[str, float]): λ_r · L_r, by kind.
    """

    task: float
    resources: Dict[str, float]


def mean_losses(
    runner: Runner, kinds: Sequence[str], window: int
) -> Optional[Losses]:
    """Mean losses of the last iterations.

    Args:
        runner (Runner): During a search.
        kinds (Sequence[str]): Constrained resources.
        window (int): Number of iterations.

    Returns:
        Losses, optional: None if mmengine's ``RuntimeInfoHook``, which
        records them, has been removed.
    """
    whole = _recorded(runner, 'loss', window)
    resources = {
        kind: _mean(_recorded(runner, f'loss_{kind}', window))
        for kind in kinds
    }
    if not whole:
        return None
    return Losses(_mean(whole) - sum(resources.values()), resources)


def _recorded(runner: Runner, name: str, window: int) -> List[float]:
    buffer = runner.message_hub.log_scalars.get(f'train/{name}')
    if buffer is None:
        return []
    return [float(value) for value in buffer.data[0][-window:]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def describe_targets(mutator: DMSMutator, targets: Mapping[str, float]) -> str:
    """A line per final target, against the supernet."""
    size = mutator.analyzer.input_size[1:]
    return '\n'.join(
        f'Target: {format_resource(target, kind)} {kind}, '
        f"{target / mutator.table.full[kind]:.3f} of the supernet's "
        f'{format_resource(mutator.table.full[kind], kind)} (input {size})'
        for kind, target in targets.items()
    )


def warn_if_idle(
    mutator: DMSMutator, targets: Mapping[str, float]
) -> Iterator[str]:
    """Warnings for targets that constrain nothing."""
    for kind, target in targets.items():
        _, largest = mutator.table.range(kind)
        if target >= largest * (1 - 1e-9):
            yield (
                f'`ResourceHook.target ({kind})`: '
                f'{format_resource(target, kind)} constrains nothing: the '
                'largest reachable is '
                f'{format_resource(largest, kind)}.'
            )


def describe_resources(mutator: DMSMutator, divisor: int) -> str:
    """A table of what each resource is at the start and can become.

    Args:
        mutator (DMSMutator): Of a prepared supernet.
        divisor (int): Of the exported widths.
    """
    names = ['supernet', 'start', 'largest', 'smallest']
    names += [f'smallest by {divisor}'] * (divisor > 1)
    lines = [f'{"Resource":10}' + ''.join(f'{name:>16}' for name in names)]
    for kind, whole in mutator.table.full.items():
        smallest, largest = mutator.table.range(kind)
        exported, _ = mutator.table.range(kind, divisor)
        start = mutator.resource(kind, hard=False)
        row = (whole, start, largest, smallest, exported)[: len(names)]
        shown = ''.join(f'{format_resource(n, kind):>16}' for n in row)
        lines.append(f'{kind:10}{shown}')
    return '\n'.join(lines)


def describe_progress(
    mutator: DMSMutator,
    phase: Phase,
    targets: Mapping[str, float],
    losses: Optional[Losses] = None,
) -> str:
    """One line: phase, targets, what the search is at, and the losses.

    Args:
        mutator (DMSMutator): During a search.
        phase (Phase): Phase of this iteration.
        targets (Mapping[str, float]): Targets of this iteration.
        losses (Losses, optional): Means since the last line. Defaults to
            None, they are unknown.
    """
    parts = [f'DMS {phase.name} {phase.progress:.0%}']
    for kind, target in targets.items():
        numbers = {
            'target': target,
            'current': mutator.resource(kind, hard=False),
            'if exported now': mutator.resource(kind),
        }
        shown = [
            f'{name} {_with_ratio(value, mutator.table.full[kind], kind)}'
            for name, value in numbers.items()
        ]
        parts.append(f'{kind} {", ".join(shown)}')
    if losses is not None:
        parts.append(_describe_losses(losses))
    return '; '.join(parts)


def _describe_losses(losses: Losses) -> str:
    shown = ', '.join(
        f'{kind} {value:.4g}' if len(losses.resources) > 1 else f'{value:.4g}'
        for kind, value in losses.resources.items()
    )
    return f'task loss {losses.task:.4g}, resource loss {shown}'


def _with_ratio(value: float, full: float, kind: str) -> str:
    if value == float('inf'):
        return 'none'
    return f'{format_resource(value, kind)} ({value / full:.3f})'


def structure_scalars(mutator: DMSMutator) -> Dict[str, float]:
    """What an export now would keep, under names that stay the same.

    Args:
        mutator (DMSMutator): During a search.

    Returns:
        dict[str, float]: ``dms/{kind}`` for each resource,
        ``dms/{kind}/{stage}`` for its parts by stage, and
        ``dms/kept/{name}`` for each unit and stage.
    """
    scalars: Dict[str, float] = {}
    for kind in mutator.table.full:
        parts = mutator.table.parts(kind, 'stage')
        scalars[f'dms/{kind}'] = sum(parts.values())
        for stage, value in parts.items():
            scalars[f'dms/{kind}/{stage or "others"}'] = value
    for name, kept in mutator.current_choices.items():
        scalars[f'dms/kept/{name}'] = float(kept)
    return scalars


def describe_subnet(structure: Structure) -> str:
    """A line with the resources of an exported subnet."""
    parts = [
        f'{format_resource(row["subnet"], kind)} {kind} '
        f"({row['ratio']:.4f} of the supernet's "
        f'{format_resource(row["supernet"], kind)}{_under(row)})'
        for kind, row in structure.resources.items()
    ]
    return f'Subnet: {", ".join(parts)}'


def _under(row: Mapping[str, float]) -> str:
    """How far below its target a resource is."""
    if 'target' not in row:
        return ''
    return f', {1 - row["subnet"] / row["target"]:.2%} under its target'


def report_progress(
    runner: Runner,
    mutator: DMSMutator,
    phase: Phase,
    targets: Mapping[str, float],
    interval: int,
) -> None:
    """Write the line of an interval, and the structure's scalars.

    Args:
        runner (Runner): Trains the search.
        mutator (DMSMutator): Of the search.
        phase (Phase): Of this iteration.
        targets (Mapping[str, float]): Of this iteration.
        interval (int): Iterations since the last line.
    """
    losses = mean_losses(runner, list(targets), interval)
    runner.logger.info(describe_progress(mutator, phase, targets, losses))
    scalars = structure_scalars(mutator)
    runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
