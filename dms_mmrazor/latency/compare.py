"""Measure found subnets against what a table predicts of them."""

from typing import Dict, List, NamedTuple, Sequence

import torch

from dms_mmrazor.latency.file import load_latency_table
from dms_mmrazor.latency.measure import (
    find_device,
    measure,
    use_threads,
)
from dms_mmrazor.latency.sampling import Prepared
from dms_mmrazor.latency.table import LatencyTable
from dms_mmrazor.latency.use import is_here
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.subnet import Structure, prune
from dms_mmrazor.supernet.plain import plain_copy


class Comparison(NamedTuple):
    """A model measured and predicted, in milliseconds.

    Attributes:
        measured (float): Median of its passes.
        predicted (float): What the table says.
        paired_error (float): Relative error of the predicted ratio to the
            supernet, both measured in turns: the error that is left if the
            machine is as fast as it was for the table.
    """

    measured: float
    predicted: float
    paired_error: float

    @property
    def error(self) -> float:
        """Relative error of the predicted milliseconds."""
        return self.predicted / self.measured - 1


def predict_structure(mutator: DMSMutator, structure: Structure) -> float:
    """Latency that a search's table gives for a structure.

    Args:
        mutator (DMSMutator): With a latency (``set_latency``).
        structure (Structure): Of the same supernet.
    """
    widths = {unit.name: len(unit.kept) for unit in structure.units}
    removed = structure.removed_blocks
    kept = [
        float(widths.get(unit.name, unit.num_channels))
        for unit in mutator.units
    ]
    blocks = [
        float(name not in removed)
        for stage in mutator.depth_units
        for name in stage.block_names
    ]
    return mutator.table.evaluate(
        'latency', torch.tensor(kept), torch.tensor(blocks)
    )


def compare_structures(
    algorithm: Prepared,
    table: LatencyTable,
    structures: Sequence[Structure],
    rounds: int = 15,
) -> List[Comparison]:
    """Measure subnets and the supernet in turns, as a table was measured.

    Args:
        algorithm (Prepared): A prepared search; afterwards its
            resources contain the table's latency.
        table (LatencyTable): Of its supernet, measured on this machine.
        structures (Sequence[Structure]): Subnets of the supernet.
        rounds (int): Measurements of each; medians count. Defaults to 15.

    Returns:
        list[Comparison]: The supernet, then the subnets.

    Raises:
        DMSError: If a structure is of another network, or the table's
            device is not available.
    """
    algorithm.mutator.set_latency(table.fits)
    plain = plain_copy(algorithm.architecture)
    models = [plain] + [
        prune(plain_copy(algorithm.architecture), s) for s in structures
    ]
    device = find_device(table.device.type)
    with use_threads(table.device.threads):
        measured = measure(models, table.input_size, device, rounds)
    mutator = algorithm.mutator
    predicted = [mutator.table.full['latency']]
    predicted += [predict_structure(mutator, s) for s in structures]
    factor = measured[0].total / predicted[0]
    return [
        Comparison(row.total, guess, guess * factor / row.total - 1)
        for row, guess in zip(measured, predicted)
    ]


def measured_beside_supernet(
    algorithm: Prepared, path: str, structure: Structure, rounds: int = 15
) -> Dict[str, float]:
    """Time of a found subnet and of its supernet, in turns.

    Random numbers that follow are the same as without it.

    Args:
        algorithm (Prepared): A prepared search.
        path (str): Table of its supernet; it says with what to measure.
        structure (Structure): What was found.
        rounds (int): Measurements of each; medians count. Defaults to 15.

    Returns:
        dict[str, float]: Milliseconds of ``supernet`` and ``subnet``; empty
        if the table is of another device than the one at hand.
    """
    table = load_latency_table(path)
    if not is_here(table):
        return {}
    with torch.random.fork_rng():
        rows = compare_structures(algorithm, table, [structure], rounds)
    return {'supernet': rows[0].measured, 'subnet': rows[1].measured}
