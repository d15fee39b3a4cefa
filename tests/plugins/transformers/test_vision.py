"""Vision models of transformers, of tiny sizes and with random weights."""

import pytest
import torch

from dms_mmrazor import DMSError, Search, apply_structure

transformers = pytest.importorskip('transformers', '4.56')

SIZES = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=32,
    patch_size=8,
)
IMAGES = (2, 3, 32, 32)


def vit():
    config = transformers.ViTConfig(**SIZES, intermediate_size=64)
    return transformers.ViTForImageClassification(config)


def dinov2():
    config = transformers.Dinov2Config(**SIZES, mlp_ratio=2)
    return transformers.Dinov2ForImageClassification(config)


def convnext():
    config = transformers.ConvNextConfig(
        hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 3, 1]
    )
    return transformers.ConvNextForImageClassification(config)


def searched(make):
    """A search that was made, and a random structure of it."""
    torch.manual_seed(0)
    search = Search(make(), torch.rand(IMAGES), 0.5, 4)
    search.mutator.topk.pruning_ratio.data.fill_(0.4)
    loss = search.model(torch.rand(IMAGES)).logits.square().mean()
    loss.backward()
    search.step()
    return search


@pytest.mark.parametrize('make', [vit, dinov2, convnext])
def test_a_model_is_searched_on_all_sides(make):
    search = searched(make)
    report = search.mutator.report()
    assert not report.unsearched
    assert sum(not layer.on_both_sides for layer in report.layers) == 2
    subnet = search.export(divisor=1)
    assert subnet.difference <= 1e-5
    plain = apply_structure(make(), subnet.structure)
    plain.load_state_dict(subnet.model.state_dict())
    images = torch.rand(IMAGES)
    outputs = [m.eval()(images).logits for m in (plain, subnet.model)]
    assert torch.equal(*outputs)


def test_heads_and_dims_are_units_and_the_depth_a_stage():
    search = searched(vit)
    names = [unit.name for unit in search.mutator.units]
    first = 'vit.encoder.layer.0.attention'
    for dim in ('heads', 'qk_dims', 'v_dims'):
        assert f'{first}.{dim}' in names
    assert [s.name for s in search.mutator.depth_units] == [
        'vit.encoder.layer'
    ]
    subnet = search.export(divisor=1).model
    attention = subnet.get_submodule(first)
    assert type(attention).__name__ == 'SlimViTAttention'
    with pytest.raises(DMSError, match='no `head_mask`'):
        subnet(torch.rand(IMAGES), head_mask=torch.ones(2, 4))
