"""The end of a search: warnings, the exported subnet and its two files."""

import math
from typing import Dict, Iterator, Mapping, Optional, Sequence

from mmengine.runner import Runner

from dms_mmrazor.apis import ExportedSubnet, export_subnet, save_subnet
from dms_mmrazor.core.durations import PhaseLengths
from dms_mmrazor.engine.advice import DECAY, LR, WEIGHT
from dms_mmrazor.engine.averaged_weights import validated_weights
from dms_mmrazor.engine.loss_history import recorded_histories
from dms_mmrazor.engine.runner_access import dataset_meta, search_info
from dms_mmrazor.engine.search_log import describe_subnet
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.models.mutators import DMSMutator

FAR = 0.02
"""A search that ends further away from its target than this is told so."""

CLOSE = {False: 0.005, True: 0.01}
"""What is promised of an export, without and with a divisor."""


def export_search(
    runner: Runner,
    algorithm: DMSAlgorithm,
    targets: Mapping[str, float],
    wanted: Mapping[str, object],
    divisor: int,
    folder: str,
) -> ExportedSubnet:
    """Export what was found, with the weights that validations use.

    Args:
        runner (Runner): After the search.
        algorithm (DMSAlgorithm): The search.
        targets (Mapping[str, float]): Final targets, absolute.
        wanted (Mapping[str, object]): Targets as the config has them.
        divisor (int): Of the exported widths.
        folder (str): Where to write.
    """
    search = search_info(runner, wanted)
    with validated_weights(runner):
        subnet = export_subnet(algorithm, targets, divisor, search)
    paths = save_subnet(subnet, folder, dataset_meta(runner))
    logger = runner.logger
    logger.info(str(subnet.fit))
    logger.info(describe_subnet(subnet.structure))
    for warning in warn_if_loose(subnet, divisor):
        logger.warning(warning)
    logger.info(
        f'Wrote {paths["structure"]} and {paths["weights"]}; outputs '
        f"equal the masked supernet's to {subnet.difference:.1e}."
    )
    return subnet


def refined_from(
    runner: Runner,
    mutator: DMSMutator,
    lengths: PhaseLengths,
    kinds: Sequence[str],
) -> Dict[str, float]:
    """Resources at the beginning of the refining phase, where recorded.

    Args:
        runner (Runner): After the search.
        mutator (DMSMutator): Of the search.
        lengths (PhaseLengths): Its phases.
        kinds (Sequence[str]): Constrained resources.
    """
    window = math.floor(lengths.total - lengths.warmup - lengths.decay)
    histories = recorded_histories(runner, kinds, window) if window else []
    return {
        history.kind: history.current[0] * mutator.table.full[history.kind]
        for history in histories
        if len(history.current)
    }


def warn_if_far(
    mutator: DMSMutator,
    targets: Mapping[str, float],
    begun: Optional[Mapping[str, float]] = None,
) -> Iterator[str]:
    """Warnings for targets that the search itself did not end at.

    Args:
        mutator (DMSMutator): After a search.
        targets (Mapping[str, float]): Final targets, absolute.
        begun (Mapping[str, float], optional): Resources at the beginning of
            the refining phase. Defaults to None, unknown.
    """
    ends = {kind: mutator.resource(kind, hard=False) for kind in targets}
    ratios = {kind: ends[kind] / target for kind, target in targets.items()}
    for kind, ratio in ratios.items():
        if ratio > 1 + FAR:
            yield (
                f'The search ended {ratio - 1:.1%} above its {kind} target; '
                f'rounding cuts the rest. Raise {LR}, then {WEIGHT}, or '
                'search longer.'
            )
    # Of several targets the nearest one is what counts.
    nearest = max(ratios, key=lambda kind: ratios[kind])
    if ratios[nearest] < 1 - FAR:
        start = (begun or {}).get(nearest)
        yield (
            f'The search ended {1 - ratios[nearest]:.1%} below its {nearest} '
            'target, where the resource loss is 0; rounding widens all units '
            f'to it. {_below(start, ends[nearest], targets[nearest])}'
        )


def _below(start: Optional[float], end: float, target: float) -> str:
    """What to turn, by what happened while refining."""
    if start is not None and start > target:
        return (
            'A step of the resource loss from above the target ended below: '
            f'lower {LR}, or set `ResourceHook.soft_landing=True`.'
        )
    if start is not None and end < start:
        return (
            'While refining, the task loss has narrowed it further '
            f'({end / start - 1:+.1%}): lower {LR}, or refine less by raising '
            f'{DECAY}.'
        )
    return (
        f'Lower {LR}, or refine longer by lowering {DECAY}: the task loss '
        'then widens it again.'
    )


def warn_if_loose(subnet: ExportedSubnet, divisor: int) -> Iterator[str]:
    """A warning if no allowed widths come as close as is promised."""
    used = {
        kind: row['subnet'] / row['target']
        for kind, row in subnet.structure.resources.items()
        if 'target' in row
    }
    if not used or max(used.values()) >= 1 - CLOSE[divisor > 1]:
        return
    kind = max(used, key=lambda name: used[name])
    how = 'lower `ResourceHook.divisor`' if divisor > 1 else 'search again'
    yield (
        f'The subnet is {1 - used[kind]:.1%} under its {kind} target: no '
        f'allowed widths were found that come closer ({how} if that matters).'
    )
