"""Models of torchvision whose layers are called by functions."""

import copy

import pytest
import torch

swin = pytest.importorskip(
    'torchvision.models.swin_transformer', reason='torchvision has no Swin'
)

from dms_mmrazor import Search, apply_structure  # noqa: E402
from dms_mmrazor.graph import count_macs  # noqa: E402
from dms_mmrazor.layers.block import block_kind_of  # noqa: E402

IMAGES = (2, 3, 36, 36)  # 9 x 9 patches: windows and merging pad
PARTS = {
    1: (swin.SwinTransformerBlock, swin.PatchMerging),
    2: (swin.SwinTransformerBlockV2, swin.PatchMergingV2),
}
ATTENTIONS = (swin.ShiftedWindowAttention, swin.ShiftedWindowAttentionV2)


def _swin(version):
    torch.manual_seed(0)
    block, merging = PARTS[version]
    return swin.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=12,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[2, 2],
        mlp_ratio=2.0,
        num_classes=5,
        block=block,
        downsample_layer=merging,
    )


def _train(search):
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.01)
    for _ in range(2):
        search.model(torch.rand(IMAGES)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()


@pytest.mark.parametrize('version', PARTS)
def test_a_swin_is_searched_with_its_heads(version, tmp_path):
    plain = _swin(version)
    search = Search(copy.deepcopy(plain), torch.rand(IMAGES), 0.5, 2)
    x = torch.rand(IMAGES)
    torch.testing.assert_close(search.model.eval()(x), plain.eval()(x))
    report = search.mutator.report()
    left = {layer.name.rpartition('.attn.')[2] for layer in report.unsearched}
    assert left == (set() if version == 1 else {'cpb_mlp.0'})
    units = {unit.rpartition('.attn.')[2] for unit, _ in report.units}
    assert {'heads', 'v_dims'} <= units
    assert ('qk_dims' in units) == (version == 1)
    search.model.train()
    _train(search)
    path = str(tmp_path / 'subnet.yaml')
    subnet = search.export(path, divisor=1)
    assert subnet.difference <= 1e-5
    macs = subnet.structure.resources['macs']['subnet']
    assert macs == count_macs(subnet.model, IMAGES)
    fresh = apply_structure(_swin(version), path)
    assert list(fresh.state_dict()) == list(plain.state_dict())
    fresh.load_state_dict(subnet.model.state_dict())
    optimizer = torch.optim.SGD(fresh.train().parameters(), lr=0.01)
    for _ in range(2):
        fresh(torch.rand(IMAGES)).sum().backward()
        optimizer.step()
    assert all(p.grad is not None for p in fresh.parameters())


def test_channels_alone_are_searched():
    exclude = ['*.attn.*']
    mutator = dict(exclude=exclude)
    search = Search(_swin(1), torch.rand(IMAGES), 0.5, 2, mutator=mutator)
    assert not any('.attn.' in u for u, _ in search.mutator.report().units)
    _train(search)
    assert search.export(divisor=1).difference <= 1e-5


@pytest.mark.parametrize('kind', ATTENTIONS)
@pytest.mark.parametrize('size', [(5, 6), (4, 8), (3, 2), (7, 3)])
def test_windows_are_those_of_the_stock_attention(kind, size):
    torch.manual_seed(0)
    stock = kind(12, [4, 3], [2, 1], num_heads=3).eval()
    torch.nn.init.normal_(stock.qkv.bias)
    slim = copy.deepcopy(stock)
    slim.__class__ = block_kind_of(stock).slim
    x = torch.rand(2, *size, 12)
    torch.testing.assert_close(slim(x), stock(x))


@pytest.mark.parametrize('kind', ['Conv3DSimple', 'Conv3DNoTemporal'])
def test_convolutions_of_volumes_of_its_own_are_searched(kind):
    video = pytest.importorskip('torchvision.models.video.resnet')
    torch.manual_seed(0)
    plain = video.VideoResNet(
        video.BasicBlock,
        [getattr(video, kind)] * 4,
        [2, 1, 1, 1],
        video.BasicStem,
        num_classes=5,
    )
    frames = torch.rand(1, 3, 2, 16, 16)
    search = Search(plain, frames, 0.5, 2)
    report = search.mutator.report()
    assert len(report.layers) == 15 and not report.unsearched
    assert [number for _, number in report.stages] == [2]
    search.mutator.set_choices(search.mutator.sample_choices())
    subnet = search.export(divisor=1)
    assert subnet.difference <= 1e-5
    macs = subnet.structure.resources['macs']['subnet']
    assert macs == count_macs(subnet.model, tuple(frames.shape))
    assert type(subnet.model.layer1[0].conv1[0]) is getattr(video, kind)
    subnet.model.train()(torch.rand(2, 3, 2, 16, 16)).sum().backward()
