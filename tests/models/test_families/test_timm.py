"""Models and layers of timm."""

import copy

import pytest
import torch
from torch import nn

timm = pytest.importorskip('timm', reason='timm is not installed')

from dms_mmrazor import Search, apply_structure  # noqa: E402
from dms_mmrazor.layers import masked_form  # noqa: E402

IMAGES = (2, 3, 32, 32)
HEADED = ('vit', 'swin', 'pvt', 'twins', 'cait', 'crossvit', 'beit', 'eva')
WHOLE_QK = ('swinv2', 'eva')
MODELS = {
    'vit': ('vit_tiny_patch16_224', dict(img_size=32, depth=3), set()),
    'vit with norms of q and k': (
        'vit_tiny_patch16_224',
        dict(img_size=32, depth=2, qk_norm=True, init_values=0.1),
        set(),
    ),
    'swin': (
        'swin_tiny_patch4_window7_224',
        dict(
            img_size=32,
            window_size=2,
            embed_dim=24,
            depths=(2, 2),
            num_heads=(2, 4),
        ),
        set(),
    ),
    'convnext with response norms': (
        'convnextv2_atto',
        dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
        set(),
    ),
    'inception next, which splits into unlike parts': (
        'inception_next_tiny',
        dict(depths=(1, 1, 1, 1), dims=(16, 16, 24, 32)),
        set(),
    ),
    'rexnet, whose shortcuts are of some channels': (
        'rexnet_100',
        dict(width_mult=0.3, depth_mult=0.5),
        set(),
    ),
    'resnet with blurs': (
        'resnetblur18',
        dict(layers=(1, 1, 2, 1), channels=(8, 16, 24, 32)),
        set(),
    ),
    'convnext': (
        'convnext_atto',
        dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
        set(),
    ),
    'pvt, whose keys are of a smaller map': (
        'pvt_v2_b0',
        dict(
            depths=(1, 1, 1, 1),
            embed_dims=(12, 24, 24, 40),
            num_heads=(1, 2, 2, 4),
        ),
        set(),
    ),
    'pvt, whose keys are of a pooled map': (
        'pvt_v2_b2_li',
        dict(
            depths=(1, 1, 1, 1),
            embed_dims=(12, 24, 24, 40),
            num_heads=(1, 2, 2, 4),
        ),
        set(),
    ),
    'twins, with windows and smaller maps': (
        'twins_svt_small',
        dict(
            img_size=32,
            depths=(2, 2),
            embed_dims=(12, 24),
            num_heads=(1, 2),
            mlp_ratios=(2, 2),
            sr_ratios=(4, 2),
            wss=(3, 2),
        ),
        set(),
    ),
    'cait, whose heads are mixed': (
        'cait_xxs24_224',
        dict(img_size=32, depth=1, embed_dim=16, num_heads=2),
        {'blocks.0.attn.proj_l', 'blocks.0.attn.proj_w'},
    ),
    'xcit, whose attention is among dims': (
        'xcit_nano_12_p16_224',
        dict(img_size=32, depth=2, embed_dim=16, num_heads=2),
        set(),
    ),
    'crossvit, whose branches ask one another': (
        'crossvit_tiny_240',
        dict(
            img_size=120,
            embed_dim=(16, 32),
            depth=((1, 1, 0),),
            num_heads=(2, 2),
        ),
        set(),
    ),
    'beit, whose biases are joined': (
        'beit_base_patch16_224',
        dict(img_size=32, depth=2, embed_dim=24, num_heads=3),
        set(),
    ),
    'eva, whose positions rotate': (
        'eva02_tiny_patch14_224',
        dict(img_size=28, depth=2, embed_dim=24, num_heads=3),
        set(),
    ),
    'swin v2, whose attention is of cosines': (
        'swinv2_tiny_window8_256',
        dict(
            img_size=32,
            window_size=2,
            embed_dim=24,
            depths=(2, 2),
            num_heads=(2, 4),
        ),
        {f'layers.{i}.blocks.{j}.attn.cpb_mlp.0' for i in '01' for j in '01'},
    ),
}


@pytest.mark.parametrize('case', MODELS)
def test_a_search_of_a_model(case, tmp_path):
    name, options, held = MODELS[case]

    def build():
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=5, **options)

    size = options.get('img_size', IMAGES[-1])
    images = torch.rand(2, 3, size, size)
    search = Search(build(), images, 0.5, 2)
    report = search.mutator.report()
    assert {layer.name for layer in report.unsearched} == held
    units = [unit for unit, _ in report.units]
    if name.startswith(HEADED):
        assert any(unit.endswith('attn.heads') for unit in units)
        assert any(unit.endswith('attn.v_dims') for unit in units)
        dims = any(unit.endswith('attn.qk_dims') for unit in units)
        whole = 'qk_norm' in options or name.startswith(WHOLE_QK)
        assert dims != whole
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.01)
    for _ in range(2):
        search.model(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    path = str(tmp_path / 'subnet.yaml')
    subnet = search.export(path)
    assert subnet.difference <= 1e-5
    plain = apply_structure(build(), path)
    assert list(plain.state_dict()) == list(build().state_dict())
    plain.load_state_dict(subnet.model.state_dict())
    plain.train()(images).sum().backward()
    assert all(p.grad is not None for p in plain.parameters())


def test_layers_of_its_own_that_compute_like_stock_ones():
    from timm.layers import GroupNorm1, LayerNorm, LayerNorm2d
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.linear import Linear
    from timm.layers.norm_act import LayerNormAct2d

    for kind in (LayerNorm, LayerNorm2d, GroupNorm1, Conv2dSame, Linear):
        dynamic = masked_form(kind)
        assert dynamic is not None and issubclass(dynamic, kind)
        assert type(dynamic.convert_from(kind(*_sizes(kind))).to_plain_op())
    # Nobody knows what this one does besides.
    other = type('Other', (LayerNormAct2d,), {})
    assert masked_form(LayerNormAct2d) is not None
    assert masked_form(other) is None


def _sizes(kind):
    sizes = (6, 4, 3) if issubclass(kind, nn.Conv2d) else (6, 4)
    return sizes if issubclass(kind, (nn.Conv2d, nn.Linear)) else (6,)


def _slim(module, kind):
    """The attention that an export has, with nothing cut."""
    slim = copy.deepcopy(module)
    slim.__class__ = kind
    dims = module.qkv.out_features // (3 * module.num_heads)
    slim.qk_dims = slim.v_dims = dims
    return slim.eval()


def test_attentions_compute_as_the_stock_ones():
    from timm.models.swin_transformer import WindowAttention
    from timm.models.vision_transformer import Attention

    from dms_mmrazor.plugins.timm import SlimAttention, SlimWindowAttention

    torch.manual_seed(0)
    stock = Attention(12, num_heads=3, qkv_bias=True).eval()
    x = torch.rand(2, 5, 12)
    allowed = torch.rand(5, 5) > 0.3
    allowed.fill_diagonal_(True)
    settings = [{}, dict(attn_mask=allowed), dict(attn_mask=torch.rand(5, 5))]
    settings.append(dict(is_causal=True))
    for fused in (True, False):
        stock.fused_attn = fused
        slim = _slim(stock, SlimAttention)
        for options in settings:
            torch.testing.assert_close(slim(x, **options), stock(x, **options))
    stock = WindowAttention(12, num_heads=3, window_size=2).eval()
    slim = _slim(stock, SlimWindowAttention)
    x, mask = torch.rand(6, 4, 12), torch.rand(3, 4, 4)
    for given in (None, mask):
        torch.testing.assert_close(slim(x, given), stock(x, given))


def test_attentions_with_joined_biases_compute_as_the_stock_ones():
    from timm.models.beit import Attention
    from timm.models.eva import EvaAttention
    from timm.models.swin_transformer_v2 import WindowAttention

    from dms_mmrazor.plugins import timm_joined_bias as forms

    torch.manual_seed(0)
    rope = torch.rand(4, 8)  # sines and cosines
    mask, shared = torch.rand(3, 4, 4), torch.rand(1, 3, 5, 5)
    cases = (
        (Attention(12, 3, True, window_size=(2, 2)), 'Beit', 5, (shared,)),
        (EvaAttention(12, 3, scale_norm=False), 'Eva', 5, (rope,)),
        (
            EvaAttention(12, 3, scale_norm=False, rotate_half=True),
            'Eva',
            5,
            (rope, shared),
        ),
        (WindowAttention(12, (2, 2), 3), 'Cosine', 4, (mask,)),
    )
    names = dict(Beit='BeitAttention', Eva='EvaAttention')
    names['Cosine'] = 'CosineWindows'
    for stock, name, tokens, given in cases:
        for parameter in stock.parameters():
            nn.init.normal_(parameter)
        stock.eval()
        slim = _slim(stock, getattr(forms, f'Slim{names[name]}'))
        calling = getattr(forms, f'DMS{names[name]}').convert_from(stock)
        x = torch.rand(6, tokens, 12)
        for fused in (True, False):
            for module in (stock, slim, calling):
                module.fused_attn = fused
            expected = stock(x, *given)
            torch.testing.assert_close(slim(x, *given), expected)
            torch.testing.assert_close(calling(x, *given), expected)


def _split_stages():
    """Blocks of timm that split into parts by a number."""
    from timm.models.cspnet import BottleneckBlock, CrossStage, CrossStage3
    from timm.models.fasternet import MLPBlock
    from timm.models.res2net import Bottle2neck

    torch.manual_seed(0)
    options = dict(
        expand_ratio=2.0,
        block_fn=BottleneckBlock,
        act_layer='relu',
        norm_layer='batchnorm2d',
    )
    parts = dict(base_width=64, scale=4, act_layer=nn.ReLU)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        CrossStage(8, 12, 2, 1, 2, **options),
        CrossStage3(12, 16, 2, 1, 2, **options),
        Bottle2neck(16, 4, norm_layer=nn.BatchNorm2d, **parts),
        Bottle2neck(16, 4, norm_layer=nn.BatchNorm2d, **parts),
        MLPBlock(16, 4, 2.0, 0.0, 0.0),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def test_parts_of_a_split_follow_the_whole(tmp_path):
    search = Search(_split_stages(), torch.rand(IMAGES), 0.4, 2)
    report = search.mutator.report()
    assert not report.unsearched
    units = dict(report.units)
    assert units['1.conv_exp.conv'] == 12  # of 24: two halves
    assert units['3.conv1'] == 4  # of 16: four parts
    for _ in range(2):
        search.model(torch.rand(IMAGES)).square().mean().backward()
        search.step()
    path = str(tmp_path / 'subnet.yaml')
    subnet = search.export(path, divisor=1)
    assert subnet.difference <= 1e-5
    plain = apply_structure(_split_stages(), path)
    plain.load_state_dict(subnet.model.state_dict())
    plain.train()(torch.rand(IMAGES)).sum().backward()
