"""A network in which torch compiles layer by layer: a transformer, here."""

import pytest
import torch


@pytest.mark.skipif(
    not hasattr(torch, 'compile'), reason='torch.compile came with torch 2'
)
def test_more_layers_need_no_more_graphs(zoo, batch):
    # Layers that hold numbers of their own (the index of a block, say) are
    # compiled one by one, until torch gives up on the ninth.
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    def graphs(layers):
        search = zoo.algorithm(zoo.vit(24, layers, 3), 32).train()
        search.mutator.topk.num_updates.fill_(1)
        compiled = torch.compile(search._run_forward, backend='eager')
        reset()
        counters.clear()
        compiled(batch(2), mode='loss')['loss'].backward()
        assert search.mutator.masks.mask_grad.abs().sum() > 0
        return counters['stats']['unique_graphs']

    assert 0 < graphs(3) == graphs(2)
