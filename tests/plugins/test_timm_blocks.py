"""Blocks of timm, each between a convolution and a head."""

import copy
import pickle

import pytest
import torch
from torch import nn

timm = pytest.importorskip('timm', reason='timm is not installed')

from dms_mmrazor import Search, apply_structure  # noqa: E402

IMAGES = (2, 3, 8, 8)
WIDTH = 16


class Between(nn.Module):
    """conv → x + block(x) → head, maps of 8 × 8.

    Args:
        block (nn.Module): Of 16 channels.
        order (str): What it takes: 'maps' [B, C, H, W], 'last' [B, H, W, C]
            or 'tokens' [B, N, C]. Defaults to 'maps'.
    """

    def __init__(self, block, order='maps'):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.block = block
        self.order = order
        self.act = nn.ReLU()
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        x = self.stem(x)
        if self.order != 'maps':
            x = x.permute(0, 2, 3, 1)
        if self.order == 'tokens':
            x = x.flatten(1, 2)
        x = self.act(x + self.block(x))
        if self.order == 'maps':
            return self.head(x.mean((2, 3)))
        return self.head(x.flatten(1, -2).mean(1))


def mobilevit(**options):
    from timm.models.mobilevit import MobileVitBlock

    options.update(transformer_depth=1, patch_size=2, num_heads=2)
    return Between(MobileVitBlock(WIDTH, WIDTH, **options))


def second_mobilevit():
    from timm.models.mobilevit import MobileVitV2Block

    block = MobileVitV2Block(WIDTH, WIDTH, transformer_depth=1, patch_size=2)
    return Between(block)


def selective_kernel():
    from timm.layers import SelectiveKernel

    kernels = SelectiveKernel(WIDTH, 8, rd_channels=4)
    return Between(nn.Sequential(kernels, nn.Conv2d(8, WIDTH, 1)))


def mixed_conv():
    from timm.layers import MixedConv2d

    return Between(MixedConv2d(WIDTH, WIDTH, [3, 5], depthwise=True))


def gated_conv():
    from timm.models.mambaout import GatedConvBlock

    return Between(GatedConvBlock(WIDTH, kernel_size=3), 'last')


def focal_modulation():
    from timm.models.focalnet import FocalModulation

    return Between(FocalModulation(WIDTH, 3, 2))


def outlook():
    from timm.models.volo import OutlookAttention

    return Between(OutlookAttention(WIDTH, 2, stride=2), 'last')


def split_transpose():
    from timm.models.edgenext import SplitTransposeBlock

    return Between(
        SplitTransposeBlock(WIDTH, 2, num_heads=2, use_pos_emb=True)
    )


def gated_tokens():
    from timm.layers import GluMlp
    from timm.models.mlp_mixer import MixerBlock

    # As many tokens after the first layer as there are channels.
    return Between(
        MixerBlock(WIDTH, 64, mlp_ratio=(1, 2), mlp_layer=GluMlp),
        'tokens',
    )


def standardized():
    from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d
    from timm.layers.std_conv import StdConv2dSame

    return Between(
        nn.Sequential(
            ScaledStdConv2d(WIDTH, 12, 3, gamma=1.5),
            nn.ReLU(),
            ScaledStdConv2dSame(12, 12, 3, groups=2),
            nn.ReLU(),
            StdConv2dSame(12, 8, 3, groups=1),
            nn.ReLU(),
            StdConv2d(8, WIDTH, 1, bias=True),
        )
    )


def activating_norms():
    from timm.layers.norm_act import GroupNorm1Act, LayerNormAct2d

    return Between(
        nn.Sequential(
            LayerNormAct2d(WIDTH),
            nn.Conv2d(WIDTH, 8, 1),
            GroupNorm1Act(8, act_layer=nn.GELU),
            nn.Conv2d(8, WIDTH, 1),
        )
    )


# What of them is not searched: layers over positions.
TOKEN_LAYERS = {f'block.mlp_tokens.fc{i}' for i in (1, 2)}
BLOCKS = {
    'mobilevit': (mobilevit, set()),
    'second mobilevit': (second_mobilevit, set()),
    'selective kernel': (selective_kernel, set()),
    'mixed conv': (mixed_conv, set()),
    'gated conv': (gated_conv, set()),
    'standardized convolutions': (standardized, set()),
    'norms that activate': (activating_norms, set()),
    'outlook attention': (outlook, set()),
    'split transpose block': (split_transpose, set()),
    'gated tokens': (gated_tokens, TOKEN_LAYERS),
    'focal modulation': (focal_modulation, set()),
}


def seeded(build):
    torch.manual_seed(0)
    return build()


@pytest.mark.parametrize('case', BLOCKS)
def test_a_search_of_a_block(case, tmp_path):
    build, held = BLOCKS[case]
    images = torch.rand(IMAGES)
    mutator = dict(depth_unit_cfg=None)
    search = Search(seeded(build), images, 0.6, 2, mutator=mutator)
    report = search.mutator.report()
    assert {layer.name for layer in report.unsearched} == held
    assert 'stem' in dict(report.units)
    for _ in range(2):
        search.model(images).square().mean().backward()
        search.step()
    path = str(tmp_path / 'subnet.yaml')
    subnet = search.export(path, divisor=1)
    assert subnet.difference <= 1e-5
    assert subnet.model.stem.out_channels < WIDTH
    plain = apply_structure(seeded(build), path)
    plain.load_state_dict(subnet.model.state_dict())
    plain.train()(images).sum().backward()
    assert all(p.grad is not None for p in plain.parameters())
    for same in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        torch.testing.assert_close(same.eval()(images), plain.eval()(images))


def test_pixels_of_patches_follow_their_embedding():
    def build():
        options = dict(img_size=32, depth=1, embed_dim=24, inner_dim=12)
        return timm.create_model('tnt_s_legacy_patch16_224', **options)

    images = torch.rand(2, 3, 32, 32)
    search = Search(seeded(build), images, 0.8, 1)
    assert not search.mutator.report().unsearched
    search.model(images).square().mean().backward()
    search.step()
    subnet = search.export(divisor=1)
    assert subnet.difference <= 1e-5
    embed = subnet.model.pixel_embed
    assert embed.in_dim == embed.proj.out_channels < 12
