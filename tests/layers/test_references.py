"""Functions, lists and hooks that refer to layers, in copies of a model."""

from functools import partial

import torch
from torch import nn

from dms_mmrazor.layers.references import model_copy, rebind


def model_with(refer):
    """A model of two layers; ``refer`` gives it something else."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    refer(model)
    return model


def zeroed(model):
    """Zeros as weights: whoever calls its layers gives zeros."""
    for parameter in model.parameters():
        parameter.data.zero_()
    return model


def closure(model):
    layer = model[1]
    model.run = lambda x: layer(x)


def default(model):
    def run(x, layer=model[1]):
        return layer(x)

    model.run = run


def keyword(model):
    def run(x, *, layer=model[1]):
        return layer(x)

    model.run = run


def listed(model):
    layers = [dict(last=model[1])]
    model.run = lambda x: layers[0]['last'](x)


def applied(model):
    model.run = partial(lambda layer, x: layer(x), model[1])


def test_a_copy_calls_its_own_layers():
    image = torch.rand(2, 4)
    for refer in (closure, default, keyword, listed, applied):
        model = model_with(refer)
        copy = zeroed(model_copy(model))
        assert not copy.run(image).any(), refer.__name__
        assert model.run(image).any(), refer.__name__


def test_a_hook_of_a_copy_reads_the_copy():
    model = model_with(closure)
    last = model[1]
    model[0].register_forward_hook(lambda module, args, x: last(x))
    copy = zeroed(model_copy(model))
    copy[0].bias.data.fill_(1.0)
    assert not copy[0](torch.rand(2, 4)).any()


def test_what_refers_to_nothing_stays():
    model = model_with(lambda model: setattr(model, 'run', len))
    model.numbers, model.names = [1, 2], {'a': 1}
    before = dict(vars(model))
    rebind(model, {id(model[0]): nn.Identity()})
    assert all(vars(model)[key] is value for key, value in before.items())
