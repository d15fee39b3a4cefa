"""Toys: models of ten lines, each with one awkward thing.

Each goes through a whole search in ``tests/test_zoo.py``. To add one, write
a function that returns a module for images [B, 3, 16, 16] and register it::

    @toy('what is awkward')
    def name():
        return Net(lambda net, x: ..., layer=...)
"""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any, Callable, Dict, NamedTuple, Tuple

import torch
import torch.nn.functional as F  # noqa: N812
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from dms_mmrazor.graph.outputs import flatten_tensors


class Toy(NamedTuple):
    """One awkward model.

    Attributes:
        awkward (str): What is awkward about it.
        make (Callable): Builds it.
        size (tuple[int]): Shape of its input.
        outcome (str): What happens today: 'searched'; 'advised', an error
            whose `mutator.exclude` works; 'refused', an error that tells
            why nothing can be searched; or 'broken', another error.
        held (int): Conv and linear layers of which neither side is searched
            today.
        wanted (str): What should happen instead, if that is something else.
    """

    awkward: str
    make: Callable[[], nn.Module]
    size: Tuple[int, ...]
    outcome: str
    held: int
    wanted: str


TOYS: Dict[str, Toy] = {}


def toy(
    awkward: str,
    outcome: str = 'searched',
    held: int = 0,
    wanted: str = '',
    size: Tuple[int, ...] = (1, 3, 16, 16),
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a toy under the name of its function."""

    def register(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        TOYS[make.__name__] = Toy(awkward, make, size, outcome, held, wanted)
        return make

    return register


class Net(BaseModel):
    """Named layers and a function of the network and an image.

    Its loss is the mean square of all that it gives.
    """

    def __init__(self, forward: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = forward

    def forward(
        self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor'
    ) -> Any:
        outputs = self.run(self, inputs)
        if mode == 'tensor':
            return outputs
        tensors = [t for t in flatten_tensors(outputs) if t.requires_grad]
        return dict(loss=sum(t.float().square().mean() for t in tensors))


def conv(inputs: int, outputs: int, kernel: int = 3, **kwargs: Any) -> Any:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **kwargs)


def cbr(inputs: int, outputs: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs)
    return nn.Sequential(conv(inputs, outputs), norm, nn.ReLU())


class Residual(nn.Module):
    def __init__(self, channels: int = 16, norm: Any = None) -> None:
        super().__init__()
        self.conv1, self.conv2 = cbr(channels, 8), conv(8, channels)
        self.norm = norm or nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x + scale * self.norm(self.conv2(self.conv1(x)))


def chain(*layers: nn.Module, last: int = 16, **others: Any) -> Net:
    """A stem of 16 channels, some layers, and a head."""
    return Net(
        lambda net, x: net.head(net.body(net.stem(x))),
        stem=cbr(3, 16),
        body=nn.Sequential(*layers),
        head=conv(last, 4, 1),
        **others,
    )


@toy('nothing, to see that the zoo is open')
def plain():
    return chain(cbr(16, 16), cbr(16, 16))


@toy('a head that only runs in training', held=1)
def training_only_head():
    def forward(net, x):
        x = net.body(net.stem(x))
        y = net.head(x)
        return (y, net.auxiliary(x)) if net.training else y

    return Net(
        forward,
        stem=cbr(3, 16),
        body=cbr(16, 16),
        head=conv(16, 4),
        auxiliary=nn.Sequential(cbr(16, 8), conv(8, 4)),
    )


class Result:
    def __init__(self, features: Any) -> None:
        self.features = features


@toy('a plain object as output')
def object_output():
    net = chain(cbr(16, 16))
    run = net.run
    net.run = lambda net, x: Result([Result(run(net, x))])
    return net


@toy("mmengine's data elements as output")
def data_elements():
    net = chain(cbr(16, 16))
    run = net.run
    net.run = lambda net, x: [BaseDataElement(maps=run(net, x))]
    return net


@dataclass
class Logits:
    logits: Tensor
    hidden: Any = None


@toy('a data class with a nested list as output')
def nested_output():
    def forward(net, x):
        x = net.stem(x)
        y = net.body(x)
        return Logits(net.head(y), [{'a': (net.other(x), None)}])

    return Net(
        forward,
        stem=cbr(3, 16),
        body=cbr(16, 16),
        head=conv(16, 4),
        other=conv(16, 2),
    )


@toy('a named tuple as output')
def named_tuple():
    pair = namedtuple('Pair', 'left right')

    def forward(net, x):
        x = net.stem(x)
        return pair(net.left(x), net.right(x))

    return Net(forward, stem=cbr(3, 16), left=conv(16, 4), right=conv(16, 2))


@toy('no tensor as output', outcome='refused')
def no_tensor_output():
    net = chain(cbr(16, 16))
    run = net.run
    net.run = lambda net, x: str(run(net, x).shape)
    return net


@toy('all channels as outputs: fewer layers to search', held=1)
def features_out():
    def forward(net, x):
        x = net.stem(x)
        y = net.body(x)
        return x, net.head(y)

    return Net(forward, stem=cbr(3, 16), body=cbr(16, 16), head=conv(16, 4))


@toy('blocks that are called by keywords alone')
def keyword_blocks():
    def forward(net, x):
        x = net.stem(x)
        for block in net.blocks:
            x = block(x=x, scale=0.5)
        return net.head(x)

    blocks = nn.ModuleList(Residual() for _ in range(3))
    return Net(forward, stem=cbr(3, 16), blocks=blocks, head=conv(16, 4))


@toy('weights in bfloat16')
def bfloat16():
    return chain(cbr(16, 16), Residual()).bfloat16()


@toy('two convolutions share a weight')
def tied_convs():
    net = chain(conv(16, 16), nn.ReLU(), conv(16, 16), nn.ReLU())
    net.body[2].weight = net.body[0].weight
    return net


@toy('a weight is shared with one that gives the output')
def tied_to_output():
    net = chain(cbr(16, 8), conv(8, 4), conv(4, 8), last=8)
    net.head = conv(8, 4)
    net.head.weight = net.body[1].weight
    return net


@toy('blocks that are no chain')
def no_chain():
    def forward(net, x):
        x = net.stem(x)
        kept = []
        for block in net.blocks:
            x = block(x)
            kept.append(x)
        return net.head(kept[0] + kept[-1])

    blocks = nn.ModuleList(Residual() for _ in range(3))
    return Net(forward, stem=cbr(3, 16), blocks=blocks, head=conv(16, 4))


@toy('a depthwise convolution between norms')
def depthwise():
    body = (conv(16, 16, groups=16), nn.BatchNorm2d(16), nn.ReLU())
    return chain(*body, cbr(16, 16))


@toy('a depthwise convolution that gives two channels for each')
def depthwise_multiplier():
    body = (conv(16, 32, groups=16), nn.BatchNorm2d(32), nn.ReLU())
    return chain(*body, cbr(32, 16))


@toy('a grouped convolution')
def grouped():
    return chain(cbr(16, 16), conv(16, 16, groups=4), nn.ReLU())


@toy('a norm without parameters ends the branches')
def plain_norm_ends_branch():
    blocks = [Residual(norm=nn.BatchNorm2d(16, affine=False)) for _ in '123']
    return chain(*blocks)


@toy('group norms')
def group_norm():
    return chain(conv(16, 16), nn.GroupNorm(4, 16), nn.ReLU(), cbr(16, 16))


@toy('a group norm without parameters')
def plain_group_norm():
    norm = nn.GroupNorm(4, 16, affine=False)
    return chain(conv(16, 16), norm, nn.ReLU(), cbr(16, 16))


@toy('a parameter without dimensions')
def scalar_parameter():
    net = chain(cbr(16, 16))
    net.scale = nn.Parameter(torch.tensor(2.0))
    net.run = lambda net, x: net.head(net.scale * net.body(net.stem(x)))
    return net


@toy('a layer norm over channels and positions', held=0)
def wide_layer_norm():
    return chain(conv(16, 16), nn.LayerNorm([16, 16, 16]), cbr(16, 16))


@toy(
    'a deconvolution before a concatenation',
)
def deconv_cat():
    def forward(net, x):
        x = net.stem(x)
        y = net.up(net.down(x))
        return net.head(torch.cat([x, y], 1))

    return Net(
        forward,
        stem=cbr(3, 16),
        down=nn.Conv2d(16, 16, 2, 2),
        up=nn.ConvTranspose2d(16, 8, 2, 2),
        head=conv(24, 4),
    )


@toy('its forward decides by values')
def value_dependent():
    def forward(net, x):
        x = net.stem(x)
        if x.mean() > -1e9:
            x = net.body(x)
        return net.head(x)

    return Net(forward, stem=cbr(3, 16), body=cbr(16, 16), head=conv(16, 4))


@toy('writes into slices')
def slice_writes():
    def forward(net, x):
        x = net.stem(x)
        y = x.new_zeros(x.shape)
        y[:, :, ::2] = net.body(x)[:, :, ::2]
        return net.head(y)

    return Net(forward, stem=cbr(3, 16), body=cbr(16, 16), head=conv(16, 4))


@toy('the same layers in a loop')
def loops():
    def forward(net, x):
        x = net.stem(x)
        for _ in range(3):
            x = net.body(x)
        return net.head(x)

    return Net(forward, stem=cbr(3, 16), body=cbr(16, 16), head=conv(16, 4))


@toy('random numbers in evaluation')
def nondeterministic():
    def forward(net, x):
        x = net.stem(x)
        return net.head(net.body(x + 0.1 * torch.rand_like(x)))

    return Net(forward, stem=cbr(3, 16), body=cbr(16, 16), head=conv(16, 4))


@toy('a slope for each channel')
def prelu():
    return chain(conv(16, 16), nn.PReLU(16), conv(16, 16), nn.PReLU(16))


@toy('frozen batch norms')
def frozen_norm():
    from torchvision.ops import FrozenBatchNorm2d

    norm = FrozenBatchNorm2d(16)
    return chain(conv(16, 16), norm, nn.ReLU(), cbr(16, 16))


@toy('convolutions along one axis, and a layer over positions', held=1)
def conv1d():
    def forward(net, x):
        x = net.stem(x).flatten(2)
        return net.head(net.two(net.one(x).relu()).relu())

    return Net(
        forward,
        stem=cbr(3, 16),
        one=nn.Conv1d(16, 16, 3, padding=1),
        two=nn.Conv1d(16, 16, 3, padding=1),
        head=nn.Linear(256, 4),
    )


@toy('layers that mix positions between others', held=2)
def mixed_positions():
    def forward(net, x):
        x = net.one(net.stem(x)[:, :, ::4, ::4].flatten(2))
        x = net.second(net.first(x).relu())  # 16 channels, 16 positions
        return net.head(net.two(x).mean(2))

    return Net(
        forward,
        stem=cbr(3, 16),
        one=nn.Conv1d(16, 16, 1),
        first=nn.Linear(16, 24),
        second=nn.Linear(24, 16),
        two=nn.Conv1d(16, 16, 1),
        head=nn.Linear(16, 4),
    )


@toy('convolutions of volumes')
def conv3d():
    def forward(net, x):
        x = net.stem(x).unsqueeze(2)
        x = net.two(net.one(x).relu()).relu()
        return net.head(x.squeeze(2))

    return Net(
        forward,
        stem=cbr(3, 16),
        one=nn.Conv3d(16, 16, 3, padding=1),
        two=nn.Conv3d(16, 16, 3, padding=1),
        head=conv(16, 4),
    )


@toy('classes of convolutions along one and three axes')
def own_convolutions():
    class Causal(nn.Conv1d):
        """Reads what came before."""

        def forward(self, x):
            return super().forward(F.pad(x, (2, 0)))

    class Volume(nn.Conv3d):
        """A convolution of volumes with settings of its own."""

        def __init__(self, read, given, middle=None):
            super().__init__(read, given, (1, 3, 3), padding=(0, 1, 1))

    def forward(net, x):
        x = net.norm(net.volume(net.stem(x).unsqueeze(2))).relu()
        return net.head(net.causal(x.flatten(2)).relu().mean(2))

    return Net(
        forward,
        stem=cbr(3, 16),
        volume=Volume(16, 16),
        norm=nn.BatchNorm3d(16),
        causal=Causal(16, 16, 3),
        head=nn.Linear(16, 4),
    )


class OnTheSpot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(16, 12), conv(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(nn.Dropout(0.0)(nn.ReLU()(self.one(x))))


@toy('modules that a forward makes on the spot')
def made_on_the_spot():
    return chain(OnTheSpot(), OnTheSpot())


class Decides(nn.Module):
    """Code that no trace with symbols can follow, with layers in it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = cbr(16, 16), cbr(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.two(x if float(x.min()) < 1e6 else x * 2)


@toy('a module that a trace calls by its forward, with all that is in it')
def called_by_forward():
    def forward(net, x):
        return net.head(net.inner.forward(net.stem(x)))

    return Net(forward, stem=cbr(3, 16), inner=Decides(), head=conv(16, 4))


@toy('channels that are shuffled')
def channel_shuffle():
    shuffle = nn.ChannelShuffle(4)
    return chain(cbr(16, 16), shuffle, cbr(16, 16))


@toy('channels that become positions')
def pixel_shuffle():
    return chain(cbr(16, 16), nn.PixelShuffle(2), cbr(4, 16))


@toy('a weight norm', held=2)
def weight_norm():
    from torch.nn.utils import weight_norm as normalize

    return chain(normalize(conv(16, 16)), nn.ReLU(), cbr(16, 16))


@toy("torch's own transformer")
def transformer_encoder():
    def forward(net, x):
        tokens = net.stem(x).flatten(2).transpose(1, 2)
        return net.head(net.encoder(tokens).mean(1))

    layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True)
    return Net(
        forward,
        stem=nn.Conv2d(3, 16, 4, 4),
        encoder=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        head=nn.Linear(16, 4),
    )


def _numbered(change):
    """Eight layers of a sequence, of which one is read in another way."""

    def forward(net, x):
        for index, layer in enumerate(net.layers):
            x = layer(x)
            if index == 3:
                changed = change(x)
        return net.head(torch.cat([changed, x], 1))

    layers = [conv(3 if i == 0 else 16, 16) for i in range(8)]
    return Net(forward, layers=nn.Sequential(*layers), head=conv(32, 4))


@toy('one layer of a numbered sequence is normalized over channels')
def numbered_norm():
    return _numbered(lambda x: F.normalize(x, dim=1))


@toy('one layer of a numbered sequence is shifted')
def numbered_sequence():
    return _numbered(lambda x: x * x.roll(1, 1))


@toy('halves that are concatenated again')
def chunk_cat():
    def forward(net, x):
        x = net.stem(x)
        for wide, middle, back in zip(net.wide, net.middle, net.back):
            one, two = wide(x).chunk(2, 1)
            x = back(torch.cat([one, two, middle(two)], 1))
        return net.head(x)

    return Net(
        forward,
        stem=cbr(3, 16),
        wide=nn.ModuleList(cbr(16, 32) for _ in '12'),
        middle=nn.ModuleList(cbr(16, 16) for _ in '12'),
        back=nn.ModuleList(cbr(48, 16) for _ in '12'),
        head=conv(16, 4),
    )


@toy('maps that are flattened into a linear layer')
def flatten_linear():
    def forward(net, x):
        x = net.stem(x)[:, :, ::4, ::4]
        return net.head(net.hidden(x.flatten(1)).relu())

    return Net(
        forward,
        stem=cbr(3, 16),
        hidden=nn.Linear(16 * 16, 32),
        head=nn.Linear(32, 4),
    )


@toy('two inputs made of one')
def two_inputs():
    def forward(net, x):
        both = net.left(x), net.right(x.flip(-1))
        return net.head(net.body(torch.maximum(*both)))

    return Net(
        forward,
        left=cbr(3, 16),
        right=cbr(3, 16),
        body=cbr(16, 16),
        head=conv(16, 4),
    )


@toy('a scale for each channel')
def layer_scale():
    net = chain(cbr(16, 16))
    net.gamma = nn.Parameter(torch.rand(16, 1, 1))
    net.run = lambda net, x: net.head(net.gamma * net.body(net.stem(x)))
    return net


@toy('a module under two names')
def shared_module():
    def forward(net, x):
        return net.head(net.two(net.one(net.stem(x))))

    net = Net(forward, stem=cbr(3, 16), one=cbr(16, 16), head=conv(16, 4))
    net.two = net.one
    return net


@toy('operations in place')
def in_place():
    def forward(net, x):
        x = net.stem(x)
        y = net.body(x)
        y += x
        return net.head(y.mul_(0.5).relu_())

    return Net(forward, stem=cbr(3, 16), body=conv(16, 16), head=conv(16, 4))


@toy('a buffer with a number for each channel')
def channel_buffer():
    net = chain(cbr(16, 16))
    net.register_buffer('mean', torch.rand(1, 16, 1, 1))
    net.run = lambda net, x: net.head(net.body(net.stem(x) - net.mean))
    return net


@toy('an embedding')
def embedding():
    def forward(net, x):
        words = (x.mean(1) * 100).long().abs().clamp(max=9).flatten(1)
        return net.head(net.hidden(net.words(words)).relu().mean(1))

    return Net(
        forward,
        words=nn.Embedding(10, 16),
        hidden=nn.Linear(16, 32),
        head=nn.Linear(32, 4),
    )


@toy('an LSTM', held=1)
def lstm():
    def forward(net, x):
        tokens = net.stem(x).flatten(2).transpose(1, 2)
        return net.head(net.hidden(net.lstm(tokens)[0]).relu().mean(1))

    return Net(
        forward,
        stem=nn.Conv2d(3, 16, 4, 4),
        lstm=nn.LSTM(16, 16, batch_first=True),
        hidden=nn.Linear(16, 32),
        head=nn.Linear(32, 4),
    )


class MixedTokens(nn.Module):
    """x + scale * (mix(x) - norm(x)), as FastViT mixes tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = conv(channels, channels, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.scale = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * (self.mix(x) - self.norm(x))


class GroupedBranches(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wide = conv(inputs, outputs, groups=inputs)
        self.point = conv(inputs, outputs, 1, groups=inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.wide(x) + self.point(x))


@toy('branches in groups, a norm that is subtracted, scales, as FastViT')
def fastvit():
    return chain(
        GroupedBranches(16, 32),
        MixedTokens(32),
        conv(32, 32, 7, groups=32),
        conv(32, 64, 1),
        nn.GELU(),
        conv(64, 16, 1),
        MixedTokens(16),
    )


@toy("an auxiliary head on a middle map, as mmsegmentation's", held=1)
def auxiliary_segmentation():
    def forward(net, x):
        middle = net.stem(x)
        y = net.head(net.body(middle))
        return [y, net.classify(net.auxiliary(middle))] if net.training else y

    return Net(
        forward,
        stem=cbr(3, 16),
        body=cbr(16, 16),
        head=conv(16, 4),
        auxiliary=cbr(16, 8),
        classify=conv(8, 4, 1),
    )


@toy('a weight in einsum', held=2)
def einsum_weight():
    def forward(net, x):
        x = net.body(net.stem(x))
        weight = net.mixed.weight
        return net.head(torch.einsum('bchw,oc->bohw', x, weight))

    return Net(
        forward,
        stem=cbr(3, 16),
        body=cbr(16, 16),
        mixed=nn.Linear(16, 16, bias=False),
        head=conv(16, 4),
    )


class SummedKernels(nn.Module):
    """Two convolutions as one, by the sum of their weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide, self.point = conv(channels, channels), conv(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.wide.weight + F.pad(self.point.weight, (1, 1, 1, 1))
        return F.conv2d(x, kernel, self.wide.bias, padding=1).relu()


@toy('kernels that are summed before they are used', held=2)
def summed_kernels():
    return chain(cbr(16, 16), SummedKernels(16), cbr(16, 16))


@toy('parts of the channels are shifted', held=1)
def shifted_parts():
    def forward(net, x):
        x = net.stem(x)
        parts = [x[:, :4].roll(1, 2), x[:, 4:8].roll(-1, 2), x[:, 8:]]
        return net.head(net.body(torch.cat(parts, 1)))

    return Net(forward, stem=cbr(3, 16), body=cbr(16, 16), head=conv(16, 4))


@toy('a hook that ties channels', outcome='advised')
def hooked():
    net = chain(conv(16, 16), nn.ReLU(), cbr(16, 16))
    net.body[0].register_forward_hook(
        lambda module, args, y: y - y.mean(1, keepdim=True)
    )
    return net


@toy('branches that a softmax weighs', held=1)
def selected_kernels():
    def forward(net, x):
        x = net.stem(x)
        y = torch.stack([branch(x) for branch in net.branches], 1)
        share = net.expand(net.squeeze(y.sum(1).mean((2, 3))).relu())
        share = share.view(-1, 2, 16, 1, 1).softmax(1)
        return net.head((y * share).sum(1))

    return Net(
        forward,
        stem=cbr(3, 16),
        branches=nn.ModuleList(cbr(16, 16) for _ in '12'),
        squeeze=nn.Linear(16, 8),
        expand=nn.Linear(8, 32),
        head=conv(16, 4),
    )


@toy('scales and shifts that a linear layer makes of the image')
def film():
    def forward(net, x):
        scale, shift = net.made(x.mean((2, 3)))[..., None, None].chunk(2, 1)
        return net.head(net.body(net.stem(x) * scale + shift))

    return Net(
        forward,
        stem=cbr(3, 16),
        made=nn.Linear(3, 32),
        body=cbr(16, 16),
        head=conv(16, 4),
    )


@toy('every pair of channels is multiplied', held=1)
def gram_matrix():
    def forward(net, x):
        x = net.body(net.stem(x)).flatten(2)
        return net.head((x @ x.transpose(1, 2)).flatten(1))

    return Net(
        forward,
        stem=cbr(3, 16),
        body=cbr(16, 16),
        head=nn.Linear(256, 4),
    )


@toy('maps are flattened by a number in the code')
def number_in_code():
    def forward(net, x):
        x = net.stem(net.first(x))[:, :, ::4, ::4]
        return net.head(net.hidden(x.reshape(-1, 256)).relu())

    return Net(
        forward,
        first=cbr(3, 16),
        stem=cbr(16, 16),
        hidden=nn.Linear(256, 32),
        head=nn.Linear(32, 4),
    )


@toy('channels are compared by a softmax', held=1)
def softmax_over_channels():
    def forward(net, x):
        return net.head(net.body(net.stem(x)).softmax(1))

    return Net(forward, stem=cbr(3, 16), body=cbr(16, 16), head=conv(16, 4))


@toy('a sigmoid that tells nothing, behind a hook', outcome='advised')
def saturated():
    net = chain(conv(16, 16), nn.ReLU(), cbr(16, 16))
    net.body[0].register_forward_hook(lambda module, args, y: y + y.flip(1))
    net.run = lambda net, x: (
        1e4 * net.head(net.body(net.stem(x))).square() + 20
    ).sigmoid()
    return net


@toy('one half gates the other')
def gated_linear_unit():
    def forward(net, x):
        return net.head(F.glu(net.body(net.stem(x)), dim=1))

    return Net(forward, stem=cbr(3, 16), body=cbr(16, 32), head=conv(16, 4))


@toy('a map of one channel weighs all channels')
def attention_map():
    def forward(net, x):
        x = net.stem(x)
        return net.head(net.body(x * net.seen(x).sigmoid()))

    return Net(
        forward,
        stem=cbr(3, 16),
        seen=conv(16, 1),
        body=cbr(16, 16),
        head=conv(16, 4),
    )


@toy('nodes of a graph hear of one another')
def adjacency():
    def forward(net, x):
        nodes = x[:, :, ::4, ::4].flatten(2).transpose(1, 2)
        near = torch.cdist(nodes, nodes).neg().softmax(-1)
        nodes = (near @ net.first(nodes)).relu()
        return net.head(torch.bmm(near, net.second(nodes)).mean(1))

    return Net(
        forward,
        first=nn.Linear(3, 16),
        second=nn.Linear(16, 24),
        head=nn.Linear(24, 4),
    )


@toy("a map that looks at itself, as SAGAN's")
def self_attention_of_maps():
    def forward(net, x):
        x = net.stem(x)[:, :, ::4, ::4]
        query, key = net.query(x).flatten(2), net.key(x).flatten(2)
        seen = torch.bmm(query.transpose(1, 2), key).softmax(-1)
        y = torch.bmm(net.value(x).flatten(2), seen.transpose(1, 2))
        return net.head(x + y.view(x.shape))

    return Net(
        forward,
        stem=cbr(3, 16),
        query=conv(16, 8, 1),
        key=conv(16, 8, 1),
        value=conv(16, 16, 1),
        head=conv(16, 4),
    )


class OwnAttention(nn.Module):
    """As a few hundred repositories write it."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(channels, 3 * channels)
        self.c_proj = nn.Linear(channels, channels)
        self.n_head, self.n_embd = heads, channels

    def forward(self, x: Tensor) -> Tensor:
        number, length, width = x.size()
        heads = (number, length, self.n_head, width // self.n_head)
        parts = self.c_attn(x).split(self.n_embd, dim=2)
        query, key, value = (p.view(*heads).transpose(1, 2) for p in parts)
        scores = query @ key.transpose(-2, -1) / key.size(-1) ** 0.5
        x = (scores.softmax(-1) @ value).transpose(1, 2)
        return self.c_proj(x.reshape(number, length, width))


@toy('an attention that asks for the width of its input')
def own_attention():
    def forward(net, x):
        x = net.stem(x).flatten(2).transpose(1, 2)
        x = x + net.one(x)
        x = x + net.two(net.norm(x))
        return net.head(x.mean(1))

    return Net(
        forward,
        stem=nn.Conv2d(3, 16, 4, 4),
        one=OwnAttention(16, 4),
        norm=nn.LayerNorm(16),
        two=OwnAttention(16, 4),
        head=nn.Linear(16, 4),
    )


@toy('numbers that no layer gives: sines of a time')
def sines_of_time():
    def forward(net, x):
        time = (x.mean((1, 2, 3)) * 100).long()[:, None]
        waves = time * torch.arange(1, 9) / 10
        shift = net.time(torch.cat([waves.sin(), waves.cos()], 1))
        return net.head(net.body(net.stem(x) + shift[..., None, None]))

    return Net(
        forward,
        time=nn.Sequential(nn.Linear(16, 24), nn.SiLU(), nn.Linear(24, 16)),
        stem=cbr(3, 16),
        body=cbr(16, 16),
        head=conv(16, 4),
    )


@toy('functions and lists that refer to layers')
def references():
    net = chain(cbr(16, 16), cbr(16, 16), extra=conv(16, 16))
    one, listed = net.extra, [net.body, net.head]
    net.listed = listed
    net.through = lambda x: one(x).relu()
    net.run = lambda net, x: net.listed[1](
        net.listed[0](net.through(net.stem(x)))
    )
    return net


@toy('a vector of its own that only training multiplies', 'advised', held=1)
def scaled_in_training():
    def forward(net, x):
        x = net.stem(x)
        x = x * net.scale if net.training else x
        return net.head(net.body(x))

    scale = nn.Parameter(torch.ones(16, 1, 1))
    return Net(
        forward,
        stem=cbr(3, 16),
        body=cbr(16, 16),
        head=conv(16, 4),
        scale=scale,
    )


@toy('maps of rows and of columns, one behind the other')
def coordinate_attention():
    def forward(net, x):
        x = net.stem(x)
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
        both = torch.cat([rows, columns.transpose(2, 3)], 2)
        return net.head(x * net.body(both).mean((2, 3), keepdim=True))

    # As many channels as a map is high.
    return Net(forward, stem=cbr(3, 16), body=cbr(16, 16), head=conv(16, 4))
