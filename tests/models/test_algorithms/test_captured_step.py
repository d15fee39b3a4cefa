"""What a captured step (a CUDA graph) needs: the same work in place.

A graph replays the operations of one step on the addresses of that step, so
that every step must make the same operations, and whatever lives from one
step to the next must stay where it is.
"""

from typing import Any, List

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dms_mmrazor.core.structure_step import RULES
from dms_mmrazor.registry import OPTIM_WRAPPER_CONSTRUCTORS


class Record(TorchDispatchMode):
    """Writes down each tensor operation with the shapes it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: List[Any] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
        self.operations.append((str(func), shapes))
        return func(*args, **(kwargs or {}))


def places(search):
    """Where everything that lives on lies: the search and the weights."""
    tensors = [*search.named_parameters(), *search.named_buffers()]
    return {name: tensor.data_ptr() for name, tensor in tensors}


@pytest.mark.parametrize(
    'metric, rule',
    [
        *[('taylor', rule) for rule in RULES],
        *[(metric, RULES[0]) for metric in ('fisher', 'index', 'l1')],
    ],
)
def test_steps_are_alike_and_in_place(zoo, batch, metric, rule):
    search = zoo.algorithm(
        zoo.cifar_resnet(18),
        mutator=dict(importance=dict(metric=metric)),
        structure_step=dict(rule=rule),
    ).train()
    full = search.mutator.table.full['macs']
    search.set_constraints({'macs': 1.0})
    search.structure.step.set_length(4)
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type='mmrazor.DMSOptimWrapperConstructor',
            optim_wrapper_cfg=dict(
                optimizer=dict(type='SGD', lr=0.1, momentum=0.9)
            ),
        )
    )(search)
    data = batch()
    data['inputs'] = torch.rand(4, 3, 32, 32)
    steps, lying = [], []
    # The first steps make the state of the optimizer and the gradients.
    for target in (0.9, 0.8, 0.7, 0.6):
        with Record() as record:
            search.set_targets({'macs': target * full})
            losses = search(**data, mode='loss')
            loss, _ = search.parse_losses(losses)
            wrapper.update_params(loss)
            search.finish_step()
        steps.append(record.operations)
        lying.append(places(search))
    assert steps[2] == steps[3]
    assert lying[0] == lying[3]
    assert (
        'mutator.masks.mask_grad' in lying[0]
        and 'structure.targets' in lying[0]
    )
    assert search.mutator.topk.num_updates == 4
