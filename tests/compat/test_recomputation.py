"""Searches of models whose blocks are computed again in the backward pass."""

import pytest
import torch
from mmengine.runner import turn_on_activation_checkpointing

from dms_mmrazor.compat.recomputation import without_reentrance


def gradients(search, batch):
    """Of the weights, the pruning ratios and the masks; importances set."""
    topk = search.mutator.topk
    topk.importance.copy_(torch.arange(float(len(topk.importance))))
    topk.num_updates.fill_(1)
    topk.pruning_ratio.data.fill_(0.3)
    search(**batch(2), mode='loss')['loss'].backward()
    named = search.named_parameters()
    grads = {n: p.grad for n, p in named if p.grad is not None}
    return {**grads, 'masks': search.mutator.masks.mask_grad}


@pytest.fixture(params=['with_cp', 'activation_checkpointing'])
def searches(request, zoo):
    """A search with recomputation, and the same one without."""
    if request.param == 'with_cp':
        resnet = dict(zoo.cifar_resnet())
        resnet['backbone'] = dict(resnet['backbone'], with_cp=True)
        recomputed = zoo.algorithm(resnet)
        plain = zoo.algorithm(zoo.cifar_resnet())
    else:
        recomputed = zoo.algorithm(zoo.vit(48, 2, 3))
        plain = zoo.algorithm(zoo.vit(48, 2, 3))
        blocks = [f'architecture.backbone.layers.{i}' for i in range(2)]
        turn_on_activation_checkpointing(recomputed, blocks)
    plain.load_state_dict(recomputed.state_dict())
    return recomputed.train(), plain.train()


def test_gradients_are_those_without_recomputation(searches, batch):
    recomputed, plain = searches
    torch.testing.assert_close(
        gradients(recomputed, batch), gradients(plain, batch)
    )


def test_stock_checkpoints_fail(searches, batch):
    # Drop the workaround when this no longer fails.
    recomputed, _ = searches
    recomputed._recomputes = False
    with pytest.raises(RuntimeError, match='a second time'):
        gradients(recomputed, batch)


def test_explicit_choices_and_torch_stay(monkeypatch):
    import torch.utils.checkpoint as module

    stock = module.checkpoint
    asked = []
    monkeypatch.setattr(
        module, 'checkpoint', lambda *args, **kwargs: asked.append(kwargs)
    )
    patched = module.checkpoint
    with pytest.raises(ZeroDivisionError), without_reentrance():
        module.checkpoint(None)
        module.checkpoint(None, use_reentrant=True)
        raise ZeroDivisionError
    assert [kwargs['use_reentrant'] for kwargs in asked] == [False, True]
    assert module.checkpoint is patched is not stock
