import copy

import pytest
import torch

from dms_mmrazor.models.mutables import LayerMasks

SIZE = 64
ARCH = dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96)


def vit(head='VisionTransformerClsHead', channels=48, **kwargs):
    backbone = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(ARCH),
        img_size=SIZE,
        patch_size=16,
    )
    backbone.update(kwargs)
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        head=dict(
            type=f'mmpretrain.{head}',
            num_classes=10,
            in_channels=channels,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
            init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
        ),
    )


def token_head(**kwargs):
    return vit(head='LinearClsHead', **kwargs)


@pytest.mark.parametrize(
    'architecture',
    [
        vit(drop_path_rate=0.1),
        vit(layer_scale_init_value=1e-4, pre_norm=True),
        token_head(out_type='avg_featmap', final_norm=False),
        token_head(out_type='avg_featmap', with_cls_token=False),
    ],
)
def test_vit(family, architecture):
    search = family.everything(architecture, SIZE)
    report = search.mutator.report()
    assert len(report.layers) == 18
    # embedding; per layer: FFN, heads, q/k dims, v dims
    assert len(report.units) == 1 + 4 * 4
    assert dict(report.stages) == {'backbone.layers': 4}
    reached = [layer.inputs + layer.outputs for layer in report.layers[1:-1]]
    assert not any('tracer' in text for text in reached)


def test_distilled_vit(family):
    search = family.search(
        vit(head='DeiTClsHead', type='mmpretrain.DistilledVisionTransformer'),
        SIZE,
    )
    assert not search.mutator.report().unsearched
    family.structures(search, SIZE, number=4)


def test_deit_tiny_is_searched_everywhere(zoo):
    search = zoo.algorithm(vit(channels=192, arch='deit-tiny'), SIZE)
    report = search.mutator.report()
    assert len(report.layers) == 50 and not report.unsearched
    assert len(report.units) == 49


def test_heads_have_a_sharper_mask_and_no_divisor(family):
    search = family.search(vit(), SIZE)
    mutator = search.mutator
    units = {unit.name: unit for unit in mutator.units}
    heads = units['backbone.layers.0.attn.heads']
    assert heads.num_channels == 3 and heads.temperature == 12
    assert heads.divisor(8) == 1
    dims = units['backbone.layers.0.attn.qk_dims']
    assert dims.num_channels == 16 and dims.temperature is None
    assert dims.divisor(8) == 8


def test_outputs_of_several_layers(family):
    """Stages end where feature maps go out; these stay where they were."""
    architecture = token_head(out_type='avg_featmap', out_indices=[1, 3])
    search = family.search(architecture, SIZE)
    mutator = search.mutator
    assert dict(mutator.report().stages) == {
        'backbone.layers.0': 2,
        'backbone.layers.2': 2,
    }
    mutator.set_choices({'backbone.layers.0': 1, 'backbone.layers.2': 1})
    subnet = family.exported(search)
    assert subnet.backbone.out_indices == [0, 1]
    assert subnet.backbone.num_layers == len(subnet.backbone.layers) == 2
    family.structures(search, SIZE)
    search.eval()
    image = torch.rand(1, 3, SIZE, SIZE)
    subnet = family.exported(search)
    search.mutator.masks.use_hard_masks()
    with torch.no_grad():
        masked = search.architecture.backbone(image)
        plain = subnet.backbone(image)
    assert len(masked) == len(plain) == 2
    for a, b in zip(masked, plain):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('heads, qk, v', [(3, 5, 16), (1, 16, 7), (2, 1, 1)])
def test_exported_attention(family, heads, qk, v):
    search = family.search(vit(), SIZE)
    name = 'backbone.layers.1.attn'
    search.mutator.set_choices(
        {f'{name}.heads': heads, f'{name}.qk_dims': qk, f'{name}.v_dims': v}
    )
    layer = family.exported(search).backbone.layers[1]
    attention = layer.attn
    assert attention.qkv.weight.shape == (heads * (2 * qk + v), 48)
    assert attention.proj.weight.shape == (48, heads * v)
    x = torch.rand(2, 17, 48)
    with torch.no_grad():
        search.mutator.masks.use_hard_masks()
        # Its first layer scales and shifts what the norm gives.
        masked = search.architecture.backbone.layers[1]
        torch.testing.assert_close(
            attention(layer.ln1(x)),
            masked.attn(masked.ln1(x)),
            rtol=1e-5,
            atol=1e-6,
        )


def test_folded_attention_gradients_are_those_of_masked_activations(family):
    from torch.nn import functional as F

    search = family.search(vit(), SIZE).double()
    attention = copy.deepcopy(search.architecture).backbone.layers[0].attn
    masks = dict(heads=3, qk_dims=16, v_dims=16)
    masks = {
        key: torch.rand(n, dtype=torch.float64).requires_grad_()
        for key, n in masks.items()
    }
    x = torch.rand(2, 5, 48, dtype=torch.float64)

    # Masks that no search has planned.
    rows = torch.cat([masks['qk_dims'].repeat(3), torch.ones(96).double()])
    attention.qkv.given = LayerMasks(outputs=rows)
    inner = masks['heads'][:, None] * masks['v_dims']
    attention.proj.given = LayerMasks(inputs=inner.flatten())
    folded = attention(x)

    def split(tensor):
        return tensor.reshape(2, 5, 3, 16).transpose(1, 2)

    qkv = F.linear(x, attention.qkv.weight, attention.qkv.bias)
    query, key, value = map(split, qkv.split(48, dim=-1))
    scores = (query * masks['qk_dims']) @ key.transpose(-2, -1) / 16**0.5
    out = scores.softmax(dim=-1) @ (value * masks['v_dims'])
    out = out * masks['heads'].view(3, 1, 1)
    out = out.transpose(1, 2).reshape(2, 5, 48)
    plain = F.linear(out, attention.proj.weight, attention.proj.bias)
    torch.testing.assert_close(folded, plain)
    wanted = [*masks.values(), attention.qkv.weight, attention.proj.weight]
    grads = [
        torch.autograd.grad(y.square().sum(), wanted) for y in (folded, plain)
    ]
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize('metric', ['l1', 'index'])
def test_static_importance_of_heads_and_dims(zoo, metric):
    search = zoo.algorithm(
        vit(), SIZE, mutator=dict(importance=dict(metric=metric))
    )
    scores = search.mutator.static_scores()
    assert scores.shape == search.mutator.topk.importance.shape
    assert torch.isfinite(scores).all()


def test_soft_resources_are_differentiable_in_heads_and_dims(family):
    search = family.search(vit(), SIZE)
    mutator = search.mutator
    mutator.topk.pruning_ratio.grad = None
    mutator.table.soft('macs').backward()
    grad = mutator.topk.pruning_ratio.grad
    assert (grad[: len(mutator.units)] < 0).all()
