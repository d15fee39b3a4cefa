import pytest
import torch
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
def test_two_groups(search, optimizer):
    wrapper = build(search, optimizer, dict(structure=dict(lr=5e-2)))
    weights, structure = wrapper.optimizer.param_groups
    expected = {id(p) for p in search.architecture.parameters()}
    assert {id(p) for p in weights['params']} == expected
    assert structure['params'] == search.structural_parameters()
    assert structure['lr'] == structure['structure_lr'] == 5e-2
    assert structure['weight_decay'] == 0
    assert structure.get('momentum', 0) == 0
    assert not structure.get('nesterov')
    for key, value in optimizer.items():
        assert key == 'type' or weights[key] == value


@pytest.mark.parametrize('key', ['momentum', 'weight_decay', 'betas'])
def test_other_options_have_no_meaning(search, key):
    with pytest.raises(DMSError, match=f'structure.{key}` has no meaning'):
        build(search, SGD, dict(structure={'lr': 1e-2, key: 0.5}))


def test_structure_that_is_a_number(search):
    with pytest.raises(DMSError, match=r'dict\(lr=…\), got 0.01'):
        build(search, SGD, dict(structure=1e-2))


def test_paramwise_options_reach_the_weights(search):
    paramwise = dict(norm_decay_mult=0.0, structure=dict(lr=1e-2))
    wrapper = build(search, SGD, paramwise)
    *weights, structure = wrapper.optimizer.param_groups
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
    assert structure['lr'] == 1e-2


def test_another_constructor_for_the_weights(zoo):
    # It knows the number of layers of some ResNets only.
    search = zoo.algorithm(zoo.resnet(50), 64)
    constructor = 'mmpretrain.LearningRateDecayOptimWrapperConstructor'
    paramwise = dict(
        constructor=constructor,
        layer_decay_rate=0.5,
        structure=dict(lr=1e-2),
    )
    wrapper = build(search, ADAMW, paramwise)
    *weights, structure = wrapper.optimizer.param_groups
    rates = {group['param_name']: group['lr'] for group in weights}
    assert rates['head.fc.weight'] == ADAMW['lr']
    assert rates['backbone.conv1.weight'] < ADAMW['lr']
    assert structure['lr'] == structure['structure_lr'] == 1e-2


def test_defaults(search):
    wrapper = build(search, SGD, accumulative_counts=3)
    assert wrapper.optimizer.param_groups[1]['lr'] == 5e-3
    assert wrapper._accumulative_counts == 3


YOLO = 'mmyolo.YOLOv5OptimizerConstructor'


def test_mmyolos_constructor_keeps_its_groups(search):
    optimizer = dict(SGD, batch_size_per_gpu=128)
    paramwise = dict(constructor=YOLO, structure=dict(lr=1e-2))
    wrapper = build(search, optimizer, paramwise)
    convs, norms, biases, structure = wrapper.optimizer.param_groups
    assert convs['weight_decay'] == 2e-4  # scaled to the batch by mmyolo
    assert all(p.dim() > 1 for p in convs['params'])
    assert all(p.dim() == 1 for p in norms['params'] + biases['params'])
    assert structure['params'] == search.structural_parameters()
    assert structure['lr'] == structure['structure_lr'] == 1e-2


def test_lost_constructor_of_mmyolo(search):
    optimizer = dict(SGD, batch_size_per_gpu=16)
    with pytest.raises(DMSError, match='paramwise_cfg.constructor'):
        build(search, optimizer)


@pytest.mark.parametrize('optimizer', [SGD, ADAMW], ids=['SGD', 'AdamW'])
def test_structure_only(zoo, optimizer):
    search = zoo.algorithm(zoo.cifar_resnet(18), structure_only=True)
    wrapper = build(search, optimizer, dict(structure=dict(lr=2e-2)))
    (group,) = wrapper.optimizer.param_groups
    assert group['params'] == search.structural_parameters()
    assert group['lr'] == group['structure_lr'] == 2e-2
    assert group['weight_decay'] == 0 and group.get('momentum', 0) == 0


def test_structure_only_in_a_config_of_mmyolo(zoo):
    search = zoo.algorithm(zoo.cifar_resnet(18), structure_only=True)
    optimizer = dict(SGD, batch_size_per_gpu=16)
    lr = dict(structure=dict(lr=1e-2))
    wrapper = build(search, optimizer, lr, clip_grad=dict(max_norm=1e-9))
    (ratios,) = search.structural_parameters()
    ratios.data.fill_(0.5)
    wrapper.update_params((ratios * 3).sum())
    torch.testing.assert_close(ratios.detach(), torch.full_like(ratios, 0.47))


@pytest.mark.parametrize('lr', [0, -1.0, '5e-3', None, float('nan')])
def test_bad_learning_rates(search, lr):
    with pytest.raises(DMSError, match='paramwise_cfg.structure.lr') as error:
        build(search, SGD, dict(structure=dict(lr=lr)))
    assert repr(lr) in str(error.value)


def test_another_model(zoo):
    with pytest.raises(DMSError, match='DMSAlgorithm.*got ImageClassifier'):
        build(zoo.plain(zoo.cifar_resnet(18)), SGD)
