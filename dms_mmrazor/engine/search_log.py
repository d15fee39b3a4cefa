"""What a search says of itself in the log."""

from typing import Dict, Iterator, Mapping

from dms_mmrazor.core import Phase
from dms_mmrazor.engine.resource_target import format_resource
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.models.subnet import Structure

FAR = 0.02


def describe_targets(mutator: DMSMutator, targets: Mapping[str, float]) -> str:
    """A line per final target, against the supernet."""
    size = mutator.analyzer.input_size[1:]
    return '\n'.join(
        f'Target: {format_resource(target)} {kind}, '
        f"{target / mutator.table.full[kind]:.3f} of the supernet's "
        f'{format_resource(mutator.table.full[kind])} (input {size})'
        for kind, target in targets.items()
    )


def describe_progress(
    mutator: DMSMutator, phase: Phase, targets: Mapping[str, float]
) -> str:
    """One line: phase, target, and what the search is at.

    Args:
        mutator (DMSMutator): During a search.
        phase (Phase): Phase of this iteration.
        targets (Mapping[str, float]): Targets of this iteration.
    """
    parts = [f'DMS {phase.name} {phase.progress:.0%}']
    for kind, target in targets.items():
        numbers = {
            'target': target,
            'current': mutator.resource(kind, hard=False),
            'if exported now': mutator.resource(kind),
        }
        shown = [
            f'{name} {_with_ratio(value, mutator.table.full[kind])}'
            for name, value in numbers.items()
        ]
        parts.append(f'{kind} {", ".join(shown)}')
    return '; '.join(parts)


def _with_ratio(value: float, full: float) -> str:
    if value == float('inf'):
        return 'none'
    return f'{format_resource(value)} ({value / full:.3f})'


def structure_scalars(mutator: DMSMutator) -> Dict[str, float]:
    """What an export now would keep, under names that stay the same.

    Args:
        mutator (DMSMutator): During a search.

    Returns:
        dict[str, float]: ``dms/{kind}`` for each resource, and
        ``dms/kept/{name}`` for each unit and stage.
    """
    scalars = {
        f'dms/{kind}': mutator.resource(kind) for kind in mutator.table.full
    }
    for name, kept in mutator.current_choices.items():
        scalars[f'dms/kept/{name}'] = float(kept)
    return scalars


def describe_subnet(structure: Structure) -> str:
    """A line with the resources of an exported subnet."""
    parts = [
        f'{format_resource(row["subnet"])} {kind} ({row["ratio"]:.4f} of the '
        f"supernet's {format_resource(row['supernet'])})"
        for kind, row in structure.resources.items()
    ]
    return f'Subnet: {", ".join(parts)}'


def warn_if_far(
    mutator: DMSMutator, targets: Mapping[str, float]
) -> Iterator[str]:
    """Warnings for targets that the search itself did not end at."""
    for kind, target in targets.items():
        current = mutator.resource(kind, hard=False)
        distance = f'{abs(current / target - 1):.1%}'
        if current > target * (1 + FAR):
            yield (
                f'The search ended {distance} above its {kind} target; '
                'rounding cuts the rest. Raise '
                '`optim_wrapper.paramwise_cfg.structure.lr`, then '
                '`ResourceHook.loss_weight`, or search longer.'
            )
        elif len(targets) == 1 and current < target * (1 - FAR):
            yield (
                f'The search ended {distance} below its {kind} target; '
                'rounding widens all units to it. Lower '
                '`optim_wrapper.paramwise_cfg.structure.lr` if that matters.'
            )
