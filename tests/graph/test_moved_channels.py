"""Splits, slices and flattening, in small models that are searched."""

import pytest
import torch
from torch import nn

SIZE = (1, 3, 8, 8)


class Between(nn.Module):
    """conv → some function → conv (or linear layer)."""

    def __init__(self, function, channels, inputs, linear=False):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        layer = nn.Linear if linear else (lambda a, b: nn.Conv2d(a, b, 1))
        self.inner = layer(inputs, 5)
        self.last = layer(5, 2)
        self.function = function

    def forward(self, x):
        return self.last(self.inner(self.function(self.first(x))))


def slices(model, size=SIZE):
    """Searched units: name → (size, (layer, start, end) of all slices)."""
    from dms_mmrazor.graph import DMSChannelAnalyzer

    groups = DMSChannelAnalyzer(size).analyze_groups(model)
    found = {}
    for group in groups:
        ours = [s for s in group.sides if s.name in ('first', 'inner', 'last')]
        places = {(side.name, side.start, side.end) for side in ours}
        found[group.name] = (group.size, places, group.reason)
    return found


def split(x):
    first, second = x.split((4, 8), 1)
    return torch.cat([second, first], 1)


def chunks(x):
    return torch.cat(list(x.chunk(3, dim=1))[:2], 1)


FUNCTIONS = {
    'chunk': (chunks, 8, [(0, 4), (4, 8)]),
    'pixels': (lambda x: x[..., ::2, 1:3], 12, [(0, 12)]),
}
NUMBERS = {
    'split': (split, 12),
    'slice': (lambda x: x[:, 2:6], 4),
    'narrow': (lambda x: x.narrow(1, 6, 6), 6),
    'view': (lambda x: x.view(-1, 12, 8, 8), 12),
    'reshape': (lambda x: torch.reshape(x, (1, 3, 16, 16)), 3),
}


@pytest.mark.parametrize('name', list(FUNCTIONS))
def test_parts_of_the_channels(name):
    function, inputs, parts = FUNCTIONS[name]
    found = slices(Between(function, 12, inputs))
    searched = [
        (size, layers) for size, layers, reason in found.values() if not reason
    ]
    begin = 0
    for start, end in parts:
        size, layers = next(
            (size, layers)
            for size, layers in searched
            if ('first', start, end) in layers
        )
        assert size == end - start
        assert ('inner', begin, begin + size) in layers
        begin += size


@pytest.mark.parametrize('name', list(NUMBERS))
def test_numbers_in_the_code_are_held(name):
    """What is cut narrower would be asked for the same."""
    found = slices(Between(NUMBERS[name][0], 12, NUMBERS[name][1]))
    assert 'has the number of channels in its code' in found['first'][2]
    assert not found['inner'][2]  # the rest is searched


@pytest.mark.parametrize('flatten', [lambda x: x.flatten(1), nn.Flatten()])
def test_flattened_channels(flatten):
    found = slices(Between(flatten, 6, 6 * 64, linear=True))
    size, layers, reason = found['first']
    assert (size, reason) == (6, '')
    assert layers == {('first', 0, 6), ('inner', 0, 384)}


def test_channels_among_the_images_for_a_while():
    def patches(x):
        batch, channels, height, width = x.shape
        x = x.reshape(batch * channels * height // 2, 2, width // 2, 2)
        x = x.transpose(1, 2).reshape(batch, channels, -1, 4)
        x = x.permute(0, 2, 3, 1).flatten(0, 1).transpose(1, 2)
        return x.unflatten(0, (batch, -1)).transpose(1, 2)

    size, layers, reason = slices(Between(patches, 6, 6))['first']
    assert (size, reason) == (6, '')
    assert layers == {('first', 0, 6), ('inner', 0, 6)}


def test_a_vector_of_all_channels():
    found = slices(Between(lambda x: x[0, :, 0, 0], 6, 6, linear=True))
    size, layers, reason = found['first']
    assert (size, reason) == (6, '')
    assert layers == {('first', 0, 6), ('inner', 0, 6)}


def test_viewed_as_flattened():
    def view(x):
        return x.view(x.size(0), -1)

    found = slices(Between(view, 6, 6 * 64, linear=True))
    assert found['first'][0] == 6 and not found['first'][2]


def test_pixels_first():
    def pixels_first(x):
        return x.permute(0, 2, 3, 1).flatten(1)

    found = slices(Between(pixels_first, 6, 6 * 64, linear=True))
    size, layers, reason = found['first']
    assert (size, reason) == (6, '')
    ranges = {('inner', 6 * k, 6 * k + 6) for k in range(64)}
    assert layers == {('first', 0, 6), *ranges}


def test_channels_in_another_order_are_not_followed():
    """Neither those that a function mixes up, nor all around them."""

    def mixed(x):
        return x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2)[:, [1, 0]]

    found = slices(Between(mixed, 6, 2))
    assert '`getitem`' in found['first'][2]
    assert '`getitem`' in found['input of inner'][2]


def test_masked_equals_cut():
    from dms_mmrazor.models.mutators import DMSMutator
    from dms_mmrazor.subnet import prune
    from dms_mmrazor.supernet.difference import max_difference

    def flatten(x):
        return x[..., ::2, 1:3].flatten(1)

    plain = Between(flatten, 12, 12 * 8, linear=True)
    supernet = Between(flatten, 12, 12 * 8, linear=True)
    supernet.load_state_dict(plain.state_dict())
    mutator = DMSMutator(parse_cfg=dict(demo_input=SIZE))
    mutator.prepare_from_supernet(supernet)
    mutator.set_choices({'first': 5})
    subnet = prune(plain, mutator.structure())
    assert subnet.first.out_channels == 5
    assert subnet.inner.in_features == 5 * 8
    assert max_difference(supernet, subnet, torch.rand(SIZE)) < 1e-6
