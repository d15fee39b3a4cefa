"""Weights in half precision: the structure stays in single precision."""

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn
from torch.nn import functional as F

SIZE = 16


class Block(nn.Module):
    """A residual block of linear layers behind a layer norm."""

    def __init__(self, channels, affine):
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=affine)
        self.a = nn.Linear(channels, 2 * channels)
        self.b = nn.Linear(2 * channels, channels)

    def forward(self, x):
        return x + self.b(F.gelu(self.a(self.norm(x))))


class ConvBlock(nn.Module):
    """A residual block that ends in a batch norm."""

    def __init__(self, channels):
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + self.norm(self.a(x))


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.Sequential(ConvBlock(16), ConvBlock(16))
        self.up = nn.ConvTranspose2d(16, 16, 2, 2, groups=2)
        self.layers = nn.Sequential(
            Block(16, True), Block(16, False), Block(16, True)
        )
        self.head = nn.Linear(16, 4)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.up(self.blocks(self.stem(inputs)))
        y = self.head(self.layers(x.flatten(2).transpose(1, 2)).mean(1))
        return dict(loss=y.square().mean()) if mode == 'loss' else y


def search_of(net):
    import dms_mmrazor.plugin  # noqa: F401
    from dms_mmrazor.models.algorithms import DMSAlgorithm

    parse_cfg = dict(demo_input=(1, 3, SIZE, SIZE))
    mutator = dict(type='DMSMutator', parse_cfg=parse_cfg)
    return DMSAlgorithm(net, mutator=mutator)


def prune_some(search):
    """Random importances and pruned shares, masks that are soft."""
    topk = search.mutator.topk
    topk.num_updates.fill_(1)
    topk.importance.uniform_()
    topk.pruning_ratio.data.fill_(0.3)
    topk.project_()


def gradients(search, dtype):
    """Importance gradients of one training step."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, SIZE, SIZE, generator=generator)
    search.train()
    search(image.to(dtype), mode='loss')['loss'].backward()
    return search.mutator.masks.mask_grad


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('before', [True, False])
def test_a_search_of_weights_in_half_precision(dtype, before):
    from dms_mmrazor.search.export import export_subnet

    torch.manual_seed(0)
    full = search_of(Net())
    torch.manual_seed(0)
    search = search_of(Net().to(dtype)) if before else search_of(Net())
    for each in (full, search):
        torch.manual_seed(1)
        prune_some(each)
    kept = full.mutator.choice_template
    macs = full.mutator.resource('macs', hard=False)
    search.to(dtype)
    assert next(search.architecture.parameters()).dtype is dtype
    assert search.mutator.topk.pruning_ratio.dtype is torch.float32
    assert search.mutator.choice_template == kept
    assert search.mutator.resource('macs', hard=False) == macs
    found = gradients(search, dtype)
    expected = gradients(full, torch.float32)
    assert found.dtype is torch.float32
    cosine = torch.cosine_similarity(found, expected, dim=0)
    assert cosine > 0.99
    exported = export_subnet(search)
    assert exported.difference < 1e-5
    image = torch.rand(2, 3, SIZE, SIZE, dtype=dtype)
    assert exported.model(image).dtype is dtype
    exported.model.train()(image, mode='loss')['loss'].backward()


def test_precision_can_rise():
    search = search_of(Net())
    prune_some(search)
    kept = search.mutator.choice_template
    search.double()
    assert search.mutator.topk.pruning_ratio.dtype is torch.float64
    assert search.mutator.choice_template == kept
    assert gradients(search, torch.float64).isfinite().all()
