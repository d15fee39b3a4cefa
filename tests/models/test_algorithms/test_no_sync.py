"""A search step never makes the host wait for the device.

Operations that would are seen on a CPU, too: they read a value of a tensor,
have a result whose size depends on values, or copy a Python number over.
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dms_mmrazor.registry import OPTIM_WRAPPER_CONSTRUCTORS

WAITING = {
    '_local_scalar_dense',
    'equal',
    'is_nonzero',
    'item',
    'lift_fresh',  # torch.tensor(…)
    'masked_select',
    'nonzero',
    'unique_dim',
    '_unique2',
}


class RefuseWaiting(TorchDispatchMode):
    """Raises where the host would wait for the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.partition('::')[2]
        assert name not in WAITING, name
        if name in ('index', 'index_put_', 'index_put'):
            masks = [i for i in args[1] if i is not None]
            assert not any(i.dtype == torch.bool for i in masks), name
        if name == 'repeat_interleave':
            assert (kwargs or {}).get('output_size') is not None, name
        return func(*args, **(kwargs or {}))


def wrapper_of(search):
    cfg = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    return OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type='mmrazor.DMSOptimWrapperConstructor',
            optim_wrapper_cfg=cfg,
        )
    )(search)


@pytest.mark.parametrize(
    'read',
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x * torch.tensor(2.0),
    ],
)
def test_waiting_is_noticed(read):
    with pytest.raises(AssertionError), RefuseWaiting():
        read(torch.rand(3))


@pytest.mark.parametrize('metric', ['taylor', 'fisher', 'index', 'l1'])
def test_search_step_does_not_wait(zoo, batch, metric):
    search = zoo.algorithm(
        zoo.cifar_resnet(18), mutator=dict(importance=dict(metric=metric))
    ).train()
    full = search.mutator.table.full['macs']
    search.set_constraints({'macs': 1.0})
    optim_wrapper = wrapper_of(search)
    data = batch()
    data['inputs'] = torch.rand(4, 3, 32, 32)
    for target in (0.9, 0.5):
        with RefuseWaiting():
            search.set_targets({'macs': target * full})
            losses = search(**data, mode='loss')
            loss, _ = search.parse_losses(losses)
            optim_wrapper.update_params(loss)
            search.finish_step()
    assert search.mutator.topk.num_updates == 2
    assert (search.mutator.topk.importance > 0).any()
