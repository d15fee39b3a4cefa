import re

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from dms_mmrazor.errors import DMSError

NAME = 'mmrazor.DMSOptimWrapperConstructor'


def build(model, optimizer, paramwise=None, **kwargs):
    return build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor=NAME,
            optimizer=optimizer,
            paramwise_cfg=paramwise or {},
            **kwargs,
        ),
    )


@pytest.fixture
def search(zoo):
    return zoo.algorithm(zoo.cifar_resnet(18))


SGD = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
ADAMW = dict(type='AdamW', lr=1e-3, weight_decay=0.05, betas=(0.8, 0.9))


@pytest.mark.parametrize('optimizer', [SGD, ADAMW], ids=['SGD', 'AdamW'])
def test_the_weights_alone(search, optimizer):
    wrapper = build(search, optimizer, accumulative_counts=3)
    (weights,) = wrapper.optimizer.param_groups
    expected = {id(p) for p in search.architecture.parameters()}
    assert {id(p) for p in weights['params']} == expected
    for key, value in optimizer.items():
        assert key == 'type' or weights[key] == value
    assert wrapper._accumulative_counts == 3


@pytest.mark.parametrize(
    'structure, lr',
    [(dict(lr=3e-2), '0.03'), (1e-2, '0.005'), ({}, '0.005')],
)
def test_former_settings_of_the_structure(search, structure, lr):
    with pytest.raises(DMSError, match='paramwise_cfg.structure') as error:
        build(search, SGD, dict(structure=structure))
    # Following the advice gives the former step.
    (advice,) = re.findall(r'structure_step=(dict\(.*?\))', str(error.value))
    assert advice == f"dict(rule='plain', lr={lr})"


def test_paramwise_options_reach_the_weights(search):
    paramwise = dict(norm_decay_mult=0.0)
    wrapper = build(search, SGD, paramwise)
    weights = wrapper.optimizer.param_groups
    norms = {
        id(parameter)
        for module in search.architecture.modules()
        if isinstance(module, nn.BatchNorm2d)
        for parameter in module.parameters()
    }
    for group in weights:
        (parameter,) = group['params']
        expected = 0 if id(parameter) in norms else 1e-4
        assert group['weight_decay'] == expected


def test_another_constructor_for_the_weights(zoo):
    # It knows the number of layers of some ResNets only.
    search = zoo.algorithm(zoo.resnet(50), 64)
    constructor = 'mmpretrain.LearningRateDecayOptimWrapperConstructor'
    paramwise = dict(constructor=constructor, layer_decay_rate=0.5)
    wrapper = build(search, ADAMW, paramwise)
    weights = wrapper.optimizer.param_groups
    rates = {group['param_name']: group['lr'] for group in weights}
    assert rates['head.fc.weight'] == ADAMW['lr']
    assert rates['backbone.conv1.weight'] < ADAMW['lr']


YOLO = 'mmyolo.YOLOv5OptimizerConstructor'


def test_mmyolos_constructor_keeps_its_groups(search):
    optimizer = dict(SGD, batch_size_per_gpu=128)
    wrapper = build(search, optimizer, dict(constructor=YOLO))
    convs, norms, biases = wrapper.optimizer.param_groups
    assert convs['weight_decay'] == 2e-4  # scaled to the batch by mmyolo
    assert all(p.dim() > 1 for p in convs['params'])
    assert all(p.dim() == 1 for p in norms['params'] + biases['params'])


def test_lost_constructor_of_mmyolo(search):
    optimizer = dict(SGD, batch_size_per_gpu=16)
    with pytest.raises(DMSError, match='paramwise_cfg.constructor'):
        build(search, optimizer)


@pytest.mark.parametrize('optimizer', [SGD, ADAMW], ids=['SGD', 'AdamW'])
def test_structure_only(zoo, optimizer):
    search = zoo.algorithm(zoo.cifar_resnet(18), structure_only=True)
    before = {k: v.clone() for k, v in search.state_dict().items()}
    # An option of mmyolo's constructors means nothing without weights.
    optimizer = dict(optimizer, batch_size_per_gpu=16)
    wrapper = build(search, optimizer, clip_grad=dict(max_norm=1e-9))
    (group,) = wrapper.optimizer.param_groups
    assert group['params'] == [search.anchor]
    wrapper.update_params(0 * search.anchor)
    for name, value in search.state_dict().items():
        assert value.equal(before[name]), name


def test_another_model(zoo):
    with pytest.raises(DMSError, match='DMSAlgorithm.*got ImageClassifier'):
        build(zoo.plain(zoo.cifar_resnet(18)), SGD)
