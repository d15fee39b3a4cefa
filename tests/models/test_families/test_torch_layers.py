"""Layers of torch that no model of OpenMMLab made us think of.

Each network is searched, masked and exported subnets agree, the counts are
those of the exported network, and that one trains.
"""

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

SIZE = 16


class Net(BaseModel):
    """A network of layers and a function that runs them on images."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        y = self.run(self, inputs)
        return dict(loss=y.square().mean()) if mode == 'loss' else y


def conv1d():
    def run(net, x):
        x = F.relu(net.norm(net.a(x.flatten(2))))
        return net.d(F.relu(net.b(x)).mean(2))

    return Net(
        run,
        a=nn.Conv1d(3, 8, 3, padding=1),
        norm=nn.BatchNorm1d(8),
        b=nn.Conv1d(8, 12, 3, padding=1, groups=2),
        d=nn.Linear(12, 4),
    )


def conv3d():
    def run(net, x):
        x = F.relu(net.norm(net.a(x[:, :, None].repeat(1, 1, 3, 1, 1))))
        return net.d(net.depthwise(net.b(x)).mean((2, 3, 4)))

    return Net(
        run,
        a=nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=1),
        norm=nn.BatchNorm3d(8),
        b=nn.Conv3d(8, 12, (1, 3, 3), bias=False),
        depthwise=nn.Conv3d(12, 12, 3, padding=1, groups=12),
        d=nn.Linear(12, 4),
    )


def flatten1d():
    def run(net, x):
        x = F.relu(net.a(x.flatten(2)[:, :, :6]))
        return net.d(x.flatten(1))

    return Net(run, a=nn.Conv1d(3, 6, 1), d=nn.Linear(36, 4))


def unet(**up):
    """Transposed convolutions, one of them in a concatenation."""

    def run(net, x):
        a = F.relu(net.norm(net.a(x)))
        b = F.relu(net.b(a))
        return net.d(torch.cat([a, net.up(b, output_size=a.shape[2:])], 1))

    return Net(
        run,
        a=nn.Conv2d(3, 8, 3, padding=1),
        norm=nn.BatchNorm2d(8),
        b=nn.Conv2d(8, 12, 3, stride=2, padding=1),
        up=nn.ConvTranspose2d(12, 6, 3, stride=2, padding=1, **up),
        d=nn.Conv2d(14, 4, 1),
    )


def transposed(dims):
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    up = {1: nn.ConvTranspose1d, 3: nn.ConvTranspose3d}[dims]

    def run(net, x):
        x = x.flatten(2) if dims == 1 else x[:, :, None]
        x = net.depthwise(net.up(F.relu(net.a(x))))
        return net.b(x).flatten(2).mean(2)

    return Net(
        run,
        a=conv(3, 8, 1),
        up=up(8, 6, 2, stride=2),
        depthwise=up(6, 6, 1, groups=6),
        b=conv(6, 4, 1),
    )


def vgg():
    """A classifier that reads every position of the feature map."""

    def run(net, x):
        x = F.max_pool2d(F.relu(net.b(F.relu(net.a(x)))), 4)
        return net.classify(torch.flatten(x, 1))

    return Net(
        run,
        a=nn.Conv2d(3, 8, 3, padding=1),
        b=nn.Conv2d(8, 6, 3, padding=1),
        classify=nn.Sequential(
            nn.Linear(6 * 16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 4)
        ),
    )


def vgg_modules():
    def run(net, x):
        return net.classify(net.features(x))

    return Net(
        run,
        features=nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3, padding=1),
            nn.AdaptiveAvgPool2d((2, 3)),
        ),
        classify=nn.Sequential(
            nn.Flatten(),
            nn.Linear(36, 12),
            nn.BatchNorm1d(12),
            nn.Linear(12, 4),
        ),
    )


def encoder(**kwargs):
    """A transformer on patches, by torch's own layers."""

    def run(net, x):
        x = net.patches(x).flatten(2).transpose(1, 2)
        return net.head(net.layers(x + net.position).mean(1))

    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **kwargs)
    return Net(
        run,
        patches=nn.Conv2d(3, 16, 4, 4),
        layers=nn.TransformerEncoder(layer, 3, enable_nested_tensor=False),
        head=nn.Linear(16, 4),
        position=nn.Parameter(torch.randn(1, 16, 16)),
    )


def decoder():
    """Queries that read an image; the attention of q, k and v unlike."""

    def run(net, x):
        memory = net.patches(x).flatten(2).permute(2, 0, 1)
        queries = net.queries[:, None].expand(-1, x.shape[0], -1)
        mask = torch.ones(5, 5, device=x.device).triu(1).bool()
        out = net.layers(queries, memory, tgt_mask=mask)
        return net.head(out.mean(0))

    layer = nn.TransformerDecoderLayer(16, 2, 24)
    return Net(
        run,
        patches=nn.Conv2d(3, 16, 4, 4),
        layers=nn.TransformerDecoder(layer, 2),
        head=nn.Linear(16, 4),
        queries=nn.Parameter(torch.randn(5, 16)),
    )


class Attention(nn.Module):
    """A residual block of one attention."""

    def __init__(self, channels, heads, bias):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attn = nn.MultiheadAttention(
            channels, heads, bias=bias, batch_first=True
        )

    def forward(self, x):
        y = self.norm(x)
        return x + self.attn(query=y, key=y, value=y)[0]


def attention():
    def run(net, x):
        x = net.patches(x).flatten(2).transpose(1, 2)
        return net.head(net.blocks(x).mean(1))

    return Net(
        run,
        patches=nn.Conv2d(3, 16, 4, 4),
        blocks=nn.Sequential(Attention(16, 2, False), Attention(16, 4, True)),
        head=nn.Linear(16, 4),
    )


class Shuffle(nn.Module):
    """Deals the channels of the groups out, one of each in turn."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        batch, channels, height, width = x.shape
        each = channels // self.groups
        x = x.view(batch, self.groups, each, height, width)
        return x.transpose(1, 2).contiguous().view(batch, -1, height, width)


def shuffle(layer):
    def run(net, x):
        x = net.shuffle(F.relu(net.norm(net.b(F.relu(net.a(x))))))
        return net.d(net.depthwise(x)).mean((2, 3))

    return Net(
        run,
        a=nn.Conv2d(3, 12, 3, padding=1),
        b=nn.Conv2d(12, 24, 1, groups=3),
        norm=nn.BatchNorm2d(24),
        shuffle=layer,
        depthwise=nn.Conv2d(24, 24, 3, padding=1, groups=24),
        d=nn.Conv2d(24, 4, 1),
    )


class Halves(nn.Module):
    """ShuffleNetV2's block: one half of the channels goes through."""

    def __init__(self, channels, chunk):
        super().__init__()
        self.a = nn.Conv2d(channels // 2, 10, 1)
        self.b = nn.Conv2d(10, channels // 2, 3, padding=1)
        self.shuffle = Shuffle(2)
        self.chunk = chunk

    def forward(self, x):
        half = x.shape[1] // 2
        x1, x2 = x.chunk(2, 1) if self.chunk else (x[:, :half], x[:, half:])
        x2 = self.b(F.relu(self.a(x2)))
        return self.shuffle(torch.cat([x1, x2], 1))


def halves():
    def run(net, x):
        return net.d(net.blocks(net.a(x))).mean((2, 3))

    return Net(
        run,
        a=nn.Conv2d(3, 16, 3, padding=1),
        blocks=nn.Sequential(Halves(16, True), Halves(16, False)),
        d=nn.Conv2d(16, 4, 1),
    )


def pixels():
    """Pixels of channels, and channels of pixels."""

    def run(net, x):
        x = F.relu(net.b(net.down(F.relu(net.a(x)))))
        return net.d(torch.cat([x, net.up(net.c(x))[..., ::2, ::2]], 1))

    return Net(
        run,
        a=nn.Conv2d(3, 6, 3, padding=1),
        down=nn.PixelUnshuffle(2),
        b=nn.Conv2d(24, 10, 1),
        c=nn.Sequential(nn.Conv2d(10, 32, 1), nn.BatchNorm2d(32), nn.ReLU()),
        up=nn.PixelShuffle(2),
        d=nn.Conv2d(18, 4, 1),
    )


def pixels_first():
    """A flattened feature map with the channels last."""

    def run(net, x):
        x = F.max_pool2d(F.relu(net.a(x)), 4).permute(0, 2, 3, 1)
        return net.d(F.relu(net.b(x.reshape(len(x), -1))))

    return Net(
        run,
        a=nn.Conv2d(3, 6, 3, padding=1),
        b=nn.Linear(96, 8),
        d=nn.Linear(8, 4),
    )


def positions():
    """Vectors of rows and columns that a table holds."""

    def run(net, x):
        x = net.a(x)
        rows, columns = (torch.arange(n, device=x.device) for n in x.shape[2:])
        x = x + net.rows(rows).t()[:, :, None]
        x = F.relu(x + net.columns(columns).permute(1, 0)[:, None])
        return net.b(x).mean((2, 3))

    return Net(
        run,
        a=nn.Conv2d(3, 8, 4, 4),
        rows=nn.Embedding(4, 8),
        columns=nn.Embedding(6, 8),
        b=nn.Conv2d(8, 4, 1),
    )


def transformer():
    def run(net, x):
        x = net.patches(x).flatten(2).transpose(1, 2)
        return net.head(net.layers(x, x[:, :5] * 2).mean(1))

    return Net(
        run,
        patches=nn.Conv2d(3, 16, 4, 4),
        layers=nn.Transformer(16, 2, 1, 1, 24, batch_first=True),
        head=nn.Linear(16, 4),
    )


SEARCHED = {
    'conv1d': conv1d,
    'conv3d': conv3d,
    'flatten1d': flatten1d,
    'unet': unet,
    'unet_groups': lambda: unet(groups=2),
    'unet_bare': lambda: unet(bias=False),
    'transposed1d': lambda: transposed(1),
    'transposed3d': lambda: transposed(3),
    'vgg': vgg,
    'vgg_modules': vgg_modules,
    'encoder': encoder,
    'encoder_norm_first': lambda: encoder(norm_first=True, activation='gelu'),
    'decoder': decoder,
    'attention': attention,
    'shuffle': lambda: shuffle(Shuffle(3)),
    'shuffle_module': lambda: shuffle(nn.ChannelShuffle(3)),
    'halves': halves,
    'pixels': pixels,
    'pixels_first': pixels_first,
    'positions': positions,
    'transformer': transformer,
}


def search_of(net, **kwargs):
    """A search whose network has live statistics and scales."""
    import dms_mmrazor.plugin  # noqa: F401
    from dms_mmrazor.graph.demo import enliven
    from dms_mmrazor.models.algorithms import DMSAlgorithm
    from dms_mmrazor.supernet.plain import plain_copy

    parse_cfg = dict(demo_input=(1, 3, SIZE, SIZE))
    mutator = dict(type='DMSMutator', parse_cfg=parse_cfg, **kwargs)
    search = DMSAlgorithm(net, mutator=mutator)
    plain = plain_copy(search.architecture)
    enliven(plain, (1, 3, SIZE, SIZE))
    search.architecture.load_state_dict(plain.state_dict())
    return search.eval()


def train_once(model):
    """One optimizer step; returns the parameters' gradients."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = model(torch.rand(2, 3, SIZE, SIZE), mode='loss')['loss']
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is None or g.isfinite().all() for g in grads.values())
    optimizer.step()
    return grads


@pytest.mark.parametrize(
    'name, blocks', [('attention', 2), ('encoder_norm_first', 3)]
)
def test_residual_attentions_can_be_removed(name, blocks):
    report = search_of(SEARCHED[name]()).mutator.report()
    assert [number for _, number in report.stages] == [blocks]


@pytest.mark.parametrize('name', SEARCHED)
def test_masked_and_exported_networks_agree(name, family):
    search = search_of(SEARCHED[name]())
    report = search.mutator.report()
    assert not report.unsearched
    low, high = report.ranges['macs']
    assert low < 0.3 * high
    family.structures(search, SIZE, number=3)
    exported, image = family.exported(search), torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():  # as a user evaluates them
        masked = search(image, mode='tensor')
        torch.testing.assert_close(exported(image), masked)
    grads = train_once(exported)
    assert all(grad is not None for grad in grads.values())
    train_once(search)
    assert (search.mutator.masks.mask_grad != 0).any()


class Recurrent(nn.Module):
    """A layer that reads a sequence step by step."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.transpose(1, 2))[0].transpose(1, 2)


def around(layer, width=8):
    """A layer between two pairs of convolutions; images are sequences."""

    def run(net, x):
        x = net.layer(F.relu(net.b(F.relu(net.a(x.flatten(2))))))
        return net.d(F.relu(net.c(x))).mean(2)

    return Net(
        run,
        a=nn.Conv1d(3, 6, 1),
        b=nn.Conv1d(6, 8, 1),
        layer=layer,
        c=nn.Conv1d(width, 6, 1),
        d=nn.Conv1d(6, 4, 1),
    )


UNSEARCHED = {
    'weight_norm': lambda: around(
        torch.nn.utils.weight_norm(nn.Conv1d(8, 8, 3, padding=1))
    ),
    'spectral_norm': lambda: around(
        torch.nn.utils.spectral_norm(nn.Conv1d(8, 8, 3, padding=1))
    ),
    'parametrized': lambda: around(
        parametrizations.spectral_norm(nn.Conv1d(8, 8, 3, padding=1))
    ),
    'pruned': lambda: around(
        prune.l1_unstructured(nn.Conv1d(8, 8, 3, padding=1), 'weight', 0.5)
    ),
    'lstm': lambda: around(Recurrent(nn.LSTM(8, 10, batch_first=True)), 10),
    'gru': lambda: around(
        Recurrent(nn.GRU(8, 5, batch_first=True, bidirectional=True)), 10
    ),
}


@pytest.mark.filterwarnings('ignore:.*weight_norm')
@pytest.mark.parametrize('name', UNSEARCHED)
def test_what_is_not_searched_is_named(name, family):
    search = search_of(UNSEARCHED[name]())
    reports = {r.name: r for r in search.mutator.report().layers}
    assert reports['b'].outputs.startswith('layer')
    assert reports['c'].inputs.startswith('layer')
    assert reports['a'].searched and reports['d'].searched
    assert reports['a'].outputs == 'unit a'
    train_once(search)
    search.eval()
    family.structures(search, SIZE, number=2)
    train_once(family.exported(search))


ADVISED = {
    'weight_norm': torch.nn.utils.remove_weight_norm,
    'spectral_norm': torch.nn.utils.remove_spectral_norm,
    'parametrized': parametrize.remove_parametrizations,
    'pruned': prune.remove,
}
"""What the reason against a computed weight says to call."""


@pytest.mark.filterwarnings('ignore:.*weight_norm')
@pytest.mark.parametrize('name', ADVISED)
def test_a_computed_weight_made_plain_is_searched(name, family):
    (reason,) = {
        report.outputs
        for report in search_of(UNSEARCHED[name]()).mutator.report().layers
        if report.name == 'layer'
    }
    assert f'.{ADVISED[name].__name__}`' in reason
    net = UNSEARCHED[name]()
    ADVISED[name](net.layer, 'weight')
    if '_load_state_dict_pre_hooks' in reason:
        net.layer._load_state_dict_pre_hooks.clear()
    search = search_of(net)
    assert not search.mutator.report().unsearched
    family.structures(search, SIZE, number=2)
    train_once(family.exported(search))
