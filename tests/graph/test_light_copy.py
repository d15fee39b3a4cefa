import copy
import gc
import weakref

import torch
from torch import nn

from dms_mmrazor.graph.demo import enliven
from dms_mmrazor.graph.light_copy import (
    cut_copy,
    is_lifeless,
    light_copy,
)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False)
    )


def test_lifeless_parameters():
    assert is_lifeless(torch.rand(3))
    assert is_lifeless(torch.zeros(2, 3)) and is_lifeless(torch.ones(2, 3))
    assert not is_lifeless(torch.rand(2, 3))
    # A head such as BEiT's: its outputs would be its biases.
    assert is_lifeless(torch.randn(10, 768) * 2e-5)
    assert not is_lifeless(torch.randn(10, 768) * 0.02)
    assert not is_lifeless(torch.zeros(0, 3))


def test_copies_share_large_parameters_alone():
    model = network()
    nn.init.zeros_(model[2].weight)
    light = light_copy(model)
    assert light[0].weight is model[0].weight
    for name in ('0.bias', '1.weight', '1.bias', '2.weight'):
        other = light.get_parameter(name)
        assert other.data_ptr() != model.get_parameter(name).data_ptr(), name
    assert light[1].running_mean is not model[1].running_mean
    before = copy.deepcopy(model.state_dict())
    enliven(light, (2, 3, 8, 8))
    assert not torch.equal(light[2].weight, model[2].weight)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_preparing_leaves_the_parameters_where_they_are(zoo):
    from dms_mmrazor.models.algorithms import DMSAlgorithm
    from dms_mmrazor.models.mutators import DMSMutator

    plain = zoo.plain(zoo.cifar_resnet(18))
    before = copy.deepcopy(plain.state_dict())
    places = {k: v.data_ptr() for k, v in plain.state_dict().items()}
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 32, 32)))
    search = DMSAlgorithm(plain, mutator)
    after = search.architecture.state_dict()
    assert {k: v.data_ptr() for k, v in after.items()} == places
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_tracing_keeps_no_copy_of_the_model(zoo, monkeypatch):
    from dms_mmrazor.graph import channel_analyzer
    from dms_mmrazor.models.mutators import DMSMutator

    copies = []

    def remembered(model):
        copies.append(weakref.ref(light := light_copy(model)))
        return light

    monkeypatch.setattr(channel_analyzer, 'light_copy', remembered)
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 32, 32)))
    mutator.prepare_from_supernet(zoo.plain(zoo.cifar_resnet(18)))
    gc.collect()
    assert copies and all(copy() is None for copy in copies)


def test_a_copy_to_be_cut_owns_no_values():
    model = network()
    cut = cut_copy(model, [model[2]])
    for index, shares in ((0, True), (1, True), (2, False)):
        own, other = model[index].weight, cut[index].weight
        assert own is not other and torch.equal(own, other)
        assert (own.data_ptr() == other.data_ptr()) is shares
    before = model[0].weight.clone()
    cut.double()
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, before)


def test_verifying_an_attention_leaves_its_weights(zoo):
    from dms_mmrazor.supernet.verify import Comparison

    vit = zoo.vit(12, 2, 3)
    search = zoo.algorithm(vit, 32)
    plain = zoo.plain(vit)
    comparison = Comparison(search.architecture, plain, (1, 3, 32, 32))
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    mutator = search.mutator
    kept = {
        name: max(1, k // 2) for name, k in mutator.choice_template.items()
    }
    mutator.set_choices(kept)
    with comparison.alive():
        assert comparison.difference(mutator.structure()) < 1e-4
    for name, value in plain.state_dict().items():
        assert torch.equal(value, before[name]), name
