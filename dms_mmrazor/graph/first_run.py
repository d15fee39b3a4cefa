"""All that one forward pass of a plain model tells."""

from typing import Dict, List, NamedTuple

from torch import nn

from dms_mmrazor.graph.demo import DemoInput, batch_of
from dms_mmrazor.graph.layer_profile import (
    LayerProfile,
    as_profiles,
    counting_positions,
)
from dms_mmrazor.graph.running import check_demo_input
from dms_mmrazor.graph.uncounted import counting_elsewhere


class FirstRun(NamedTuple):
    """What is known of a model once it ran on the demo input.

    Attributes:
        layers (list[LayerProfile]): From :func:`profile_layers`.
        uncounted (dict[str, float]): From :func:`uncounted_macs`.
    """

    layers: List[LayerProfile]
    uncounted: Dict[str, float]


def run_first(
    model: nn.Module,
    input_size: DemoInput,
    key: str = 'mutator.parse_cfg.demo_input',
) -> FirstRun:
    """Run a model on the demo input and count on the way.

    Args:
        model (nn.Module): A plain model; its state is not changed.
        input_size (tuple | ExampleInputs): (B, C, H, W), or what it is
            called with.
        key (str): Where the user has set it, for messages. Defaults to
            'mutator.parse_cfg.demo_input'.

    Raises:
        DMSError: If it does not run on an input of that shape.
    """
    batch = batch_of(input_size)
    with counting_positions(model, batch) as positions:
        with counting_elsewhere(model, batch) as uncounted:
            check_demo_input(model, input_size, key)
    return FirstRun(as_profiles(positions), uncounted)
