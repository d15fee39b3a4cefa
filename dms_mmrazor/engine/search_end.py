"""The end of a search: the exported subnet and its two files."""

from typing import Mapping

from mmengine import dist
from mmengine.runner import Runner

from dms_mmrazor.engine.runner_access import (
    dataset_meta,
    search_info,
    validated_weights,
)
from dms_mmrazor.engine.search_log import describe_subnet
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import (
    ExportedSubnet,
    export_subnet,
    save_subnet,
)
from dms_mmrazor.search.export_warnings import warn_if_loose


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
