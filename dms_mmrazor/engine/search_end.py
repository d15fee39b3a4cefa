"""The end of a search: warnings, the exported subnet and its two files."""

from typing import Iterator, Mapping

from mmengine import dist
from mmengine.runner import Runner

from dms_mmrazor.apis import ExportedSubnet, export_subnet, save_subnet
from dms_mmrazor.engine.averaged_weights import validated_weights
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
        folder (str): Where the main process writes.
    """
    search = search_info(runner, wanted)
    with validated_weights(runner):
        subnet = export_subnet(algorithm, targets, divisor, search)
    if not dist.is_main_process():
        return subnet
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


def warn_if_far(
    mutator: DMSMutator, targets: Mapping[str, float]
) -> Iterator[str]:
    """Warnings for targets that the search itself did not end at.

    Args:
        mutator (DMSMutator): After a search.
        targets (Mapping[str, float]): Final targets, absolute.
    """
    ratios = {
        kind: mutator.resource(kind, hard=False) / target
        for kind, target in targets.items()
    }
    # Of several targets the nearest one is what counts.
    nearest = max(ratios, key=lambda kind: ratios[kind])
    if ratios[nearest] > 1 + FAR:
        yield (
            f'The search ended {ratios[nearest] - 1:.1%} above its {nearest} '
            'target; rounding cuts the rest. Search longer, or raise '
            '`model.structure_step.lr` if you have set it.'
        )
    if ratios[nearest] < 1 - FAR:
        yield (
            f'The search ended {1 - ratios[nearest]:.1%} below its {nearest} '
            'target; rounding widens all units to it. Refine longer by '
            'lowering `ResourceHook.decay`, or lower '
            '`model.structure_step.lr` if you have set it.'
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
