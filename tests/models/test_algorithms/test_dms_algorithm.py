import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from dms_mmrazor.layers import DMSOp
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.registry import MODELS
from dms_mmrazor.search.export import export_subnet
from dms_mmrazor.supernet.plain import plain_copy


@pytest.fixture
def search(zoo):
    search = zoo.algorithm(zoo.cifar_resnet())
    search.init_weights()
    return search


def total_loss(losses):
    return sum(value for key, value in losses.items() if 'loss' in key)


def started(search, ratio=0.3):
    """Bring a search to where masks differ from 1."""
    topk = search.mutator.topk
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(topk.importance.shape, generator=generator)
    topk.importance.copy_(values)
    topk.num_updates.fill_(1)
    topk.pruning_ratio.data.fill_(ratio)
    return search


def optim_wrapper(search, **kwargs):
    cfg = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9), **kwargs)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type='mmrazor.DMSOptimWrapperConstructor',
            optim_wrapper_cfg=cfg,
        )
    )
    return constructor(search)


def states(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_conversion_keeps_parameters_and_keys(zoo):
    plain = zoo.plain(zoo.cifar_resnet())
    parameters = dict(plain.named_parameters())
    keys = list(plain.state_dict())
    search = DMSAlgorithm(
        plain, DMSMutator(parse_cfg=dict(demo_input=(1, 3, 32, 32)))
    )
    assert search.architecture is plain
    assert list(search.architecture.state_dict()) == keys
    converted = dict(search.architecture.named_parameters())
    assert list(converted) == list(parameters)
    assert all(converted[n] is p for n, p in parameters.items())
    assert any(isinstance(m, DMSOp) for m in plain.modules())


@pytest.mark.parametrize('depth', [18, 34])
def test_nothing_changes_before_the_first_update(zoo, batch, depth):
    plain = zoo.plain(zoo.cifar_resnet(depth))
    search = zoo.algorithm(zoo.cifar_resnet(depth))
    search.architecture.load_state_dict(plain.state_dict())
    data = batch()
    for _ in range(2):
        plain.train(), search.train()
        expected = plain(**data, mode='loss')['loss']
        losses = search(**data, mode='loss')
        assert torch.equal(losses['loss'], expected)
        expected.backward()
        losses['loss'].backward()
        plain.eval(), search.eval()
        with torch.no_grad():
            assert torch.equal(search(data['inputs']), plain(data['inputs']))
        for (name, p), q in zip(
            plain.named_parameters(), search.architecture.parameters()
        ):
            assert torch.equal(p.grad, q.grad), name
    for name, value in plain.state_dict().items():
        assert torch.equal(search.architecture.state_dict()[name], value)


@pytest.mark.parametrize('name', ['cifar_resnet', 'resnet'])
def test_initialization_is_that_of_the_architecture(zoo, name):
    cfg = zoo.cifar_resnet() if name == 'cifar_resnet' else zoo.resnet(18, 10)
    plain = MODELS.build(copy.deepcopy(cfg))
    torch.manual_seed(7)
    plain.init_weights()
    search = zoo.algorithm(cfg)
    torch.manual_seed(7)
    search.init_weights()
    expected = plain.state_dict()
    for key, value in search.architecture.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_losses_contain_the_constraint(search, batch):
    started(search).set_constraints(dict(macs=2.0, params=0.5))
    full = search.mutator.table.full
    search.set_targets(dict(macs=full['macs'] / 4, params=full['params'] * 2))
    losses = search(**batch(), mode='loss')
    ratio = float(losses['macs_ratio'])
    assert ratio == pytest.approx(
        search.mutator.resource('macs', hard=False) / full['macs']
    )
    expected = 2 * torch.log(torch.tensor(ratio * 4))
    torch.testing.assert_close(losses['loss_macs'].detach(), expected)
    assert float(losses['macs_target']) == 0.25
    assert float(losses['loss_params']) == 0
    assert float(losses['params_target']) == 1
    # The constraint is not part of a backward pass, nor of the importance.
    assert not losses['loss_macs'].requires_grad
    total_loss(losses).backward()
    assert search.mutator.topk.pruning_ratio.grad is None
    assert search.mutator.masks.mask_grad.any()


def test_without_constraints_there_is_only_the_task(search, batch):
    assert list(search(**batch(), mode='loss')) == ['loss']


def test_evaluation_shows_the_structure_of_now(search, batch):
    started(search, 0.5).eval()
    data = batch()
    with torch.no_grad():
        evaluated = search(data['inputs'])
        samples = search(**data, mode='predict')
        masks = search.mutator.masks
        hard = masks.topk.hard_mask().float()
        with masks.showing(hard):
            expected = search.architecture(data['inputs'])
    assert torch.equal(evaluated, expected)
    assert len(samples) == 4
    # And training sees soft masks again.
    search.train()
    search(**data, mode='loss')
    mask = torch.cat(masks.table.masks)
    assert mask.requires_grad and not torch.equal(mask, hard)


def test_one_update_per_optimizer_step_under_accumulation(search, batch):
    """The importance sees the gradient of the mean loss, once."""
    started(search)
    parts = [batch(seed=1), batch(seed=2)]
    reference = copy.deepcopy(search)
    losses = [reference(**part, mode='loss')['loss'] for part in parts]
    (sum(losses) / 2).backward()
    expected = reference.mutator.masks.mask_grad

    wrapper = optim_wrapper(search, accumulative_counts=2)
    wrapper.initialize_count_status(search, 0, 4)
    steps = []
    for part in parts:
        with wrapper.optim_context(search):
            losses = search(**part, mode='loss')
        loss = wrapper.scale_loss(total_loss(losses))
        wrapper.backward(loss)
        steps.append(wrapper.should_update())
    assert steps == [False, True]
    grad = search.mutator.masks.mask_grad
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)
    mask = search.mutator.masks.mask.clone()
    before = search.mutator.topk.importance.clone()
    search.finish_step()
    torch.testing.assert_close(
        search.mutator.topk.importance,
        0.99 * before + 0.01 * (mask * expected).square(),
    )


def test_half_precision_on_the_cpu(search, batch):
    started(search).set_constraints(dict(macs=1.0))
    search.set_targets(dict(macs=1e7))
    data = batch()
    full = copy.deepcopy(search)
    total_loss(full(**data, mode='loss')).backward()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = search(**data, mode='loss')
    total_loss(losses).backward()
    topk, expected = search.mutator.topk, full.mutator.topk
    grad = search.mutator.masks.mask_grad
    assert torch.isfinite(grad).all() and grad.any()
    similarity = torch.cosine_similarity(
        grad, full.mutator.masks.mask_grad, dim=0
    )
    assert similarity > 0.8
    torch.testing.assert_close(
        losses['loss_macs'].detach(),
        full(**data, mode='loss')['loss_macs'].detach(),
    )
    before = topk.pruning_ratio.detach().clone()
    search.finish_step()
    assert topk.num_updates == expected.num_updates + 1
    assert topk.pruning_ratio.dtype == torch.float32
    assert not torch.equal(topk.pruning_ratio, before)


@pytest.mark.parametrize('structure_only', [True, False])
def test_a_loss_that_is_not_finite_changes_no_structure(
    zoo, batch, structure_only
):
    search = zoo.algorithm(zoo.cifar_resnet(), structure_only=structure_only)
    search.init_weights()
    started(search).set_constraints(dict(macs=1.0))
    search.set_targets(dict(macs=1e7))
    wrapper = optim_wrapper(search)
    before = {**states(search.mutator), **states(search.structure)}
    data = batch()
    broken = data['inputs'].clone()
    broken[0, 0, 0, 0] = float('nan')
    losses = search(broken, data['data_samples'], mode='loss')
    wrapper.update_params(total_loss(losses))
    search.finish_step()
    after = {**search.mutator.state_dict(), **search.structure.state_dict()}
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    if structure_only:
        # No weight has changed either, so the search goes on.
        wrapper.update_params(total_loss(search(**data, mode='loss')))
        search.finish_step()
        topk = search.mutator.topk
        assert torch.isfinite(topk.pruning_ratio).all()
        assert not torch.equal(
            topk.pruning_ratio, before['masks.topk.pruning_ratio']
        )
        assert topk.num_updates == 2


def test_structure_only(zoo, batch):
    search = zoo.algorithm(zoo.cifar_resnet(), structure_only=True)
    search.init_weights()
    assert not any(p.requires_grad for p in search.architecture.parameters())
    search.set_constraints(dict(macs=1.0))
    search.set_targets(dict(macs=search.mutator.table.full['macs'] / 4))
    wrapper = optim_wrapper(search)
    assert isinstance(wrapper, OptimWrapper)
    (group,) = wrapper.optimizer.param_groups
    assert group['params'] == [search.anchor]
    weights = {k: v.clone() for k, v in search.architecture.named_parameters()}
    statistics = states(search.architecture)
    for seed in range(3):
        search.train()
        data = batch(seed=seed)
        losses = search(**data, mode='loss')
        wrapper.update_params(total_loss(losses))
        search.finish_step()
    for name, value in search.architecture.named_parameters():
        assert torch.equal(value, weights[name]), name
    mean = 'backbone.bn1.running_mean'
    assert not torch.equal(
        search.architecture.state_dict()[mean], statistics[mean]
    )
    assert search.mutator.topk.importance.any()
    assert (search.mutator.topk.pruning_ratio > 0).all()


def test_pretrained_weights_of_the_plain_model(zoo, tmp_path, batch):
    cfg = zoo.cifar_resnet()
    plain = zoo.plain(cfg).eval()
    path = str(tmp_path / 'plain.pth')
    torch.save(dict(state_dict=plain.state_dict(), meta={}), path)
    cfg['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    search = zoo.algorithm(cfg)
    search.init_weights()
    search.eval()
    image = batch()['inputs']
    with torch.no_grad():
        expected = plain(image)
        assert torch.equal(search(image), expected)
        assert torch.equal(plain_copy(search.architecture)(image), expected)


def test_own_init_cfg_loads_a_checkpoint_of_a_search(zoo, search, tmp_path):
    path = str(tmp_path / 'search.pth')
    started(search)
    torch.save(dict(state_dict=search.state_dict(), meta={}), path)
    other = zoo.algorithm(
        zoo.cifar_resnet(), init_cfg=dict(type='Pretrained', checkpoint=path)
    )
    other.init_weights()
    for name, value in search.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert other.mutator.current_choices == search.mutator.current_choices


def test_state_survives_a_checkpoint(zoo, search):
    started(search, 0.4).mutator.masks.hold_depth()
    other = zoo.algorithm(zoo.cifar_resnet())
    other.load_state_dict(search.state_dict(), strict=True)
    assert other.mutator.current_choices == search.mutator.current_choices
    other.mutator.topk.pruning_ratio.data.fill_(0.0)
    depths = [s.current_choice for s in search.mutator.depth_units]
    assert [s.current_choice for s in other.mutator.depth_units] == depths


def test_a_copy_is_independent(search, batch):
    data = batch()
    started(search)
    search(**data, mode='loss')  # masks that belong to a graph
    clone = copy.deepcopy(search)
    modules = set(search.modules())
    assert not any(module in modules for module in clone.modules())
    table = clone.mutator.masks.table
    assert table is not search.mutator.masks.table
    for unit in [*clone.mutator.units, *clone.mutator.depth_units]:
        mutable = getattr(unit, 'mutable_channel', None) or unit.mutable_depth
        operator = mutable.operator
        assert operator.topk is clone.mutator.topk
        assert operator.table is table
    for module in clone.architecture.modules():
        if isinstance(module, DMSOp) and module.depth is not None:
            assert module.depth.mutable in set(clone.mutator.modules())
    choices = search.mutator.current_choices
    search.eval()
    with torch.no_grad():
        before = search(data['inputs'])
        clone.mutator.set_choices(
            {name: 1 for name in clone.mutator.current_choices}
        )
        for parameter in clone.architecture.parameters():
            parameter.zero_()
        clone.eval()(data['inputs'])
        assert torch.equal(search(data['inputs']), before)
    assert search.mutator.current_choices == choices
    assert set(clone.mutator.current_choices.values()) == {1}


def test_plain_copy_is_the_architecture_again(zoo, search, batch):
    started(search)
    plain = plain_copy(search.architecture)
    reference = zoo.plain(zoo.cifar_resnet())
    kinds = {name: type(m) for name, m in reference.named_modules()}
    assert {name: type(m) for name, m in plain.named_modules()} == kinds
    reference.load_state_dict(search.architecture.state_dict())
    image = batch()['inputs']
    with torch.no_grad():
        assert torch.equal(plain.eval()(image), reference.eval()(image))
    with torch.no_grad():
        next(plain.parameters()).zero_()
    assert next(search.architecture.parameters()).any()


def test_mutator_and_preprocessor_from_configs(zoo):
    preprocessor = dict(
        type='mmpretrain.ClsDataPreprocessor', mean=[1.0] * 3, std=[2.0] * 3
    )
    search = zoo.algorithm(
        zoo.cifar_resnet(18), data_preprocessor=preprocessor
    )
    mean = search.data_preprocessor.mean.flatten().tolist()
    assert mean == [1.0] * 3
    assert search.data_preprocessor is search.architecture.data_preprocessor


@pytest.mark.parametrize('metric', ['index', 'l1'])
def test_static_importance(zoo, batch, metric):
    search = zoo.algorithm(
        zoo.cifar_resnet(18), mutator=dict(importance=dict(metric=metric))
    )
    search.init_weights()
    search(**batch(), mode='loss')['loss'].backward()
    search.finish_step()
    unit = search.mutator.units[1]
    assert unit.name == 'backbone.layer1.0.conv1'
    scores = search.mutator.topk.split(search.mutator.topk.importance)[1]
    if metric == 'index':
        assert torch.equal(scores, torch.arange(16, 0, -1) / 16)
    else:
        conv = search.architecture.backbone.layer1[0].conv1
        expected = conv.weight.detach().abs().sum((1, 2, 3))
        torch.testing.assert_close(scores, expected)


def test_layers_outside_the_search_stay_plain(search):
    kinds = {
        name: type(module)
        for name, module in search.architecture.named_modules()
    }
    assert kinds['backbone.bn1'] is nn.BatchNorm2d
    assert kinds['backbone.layer2.0.bn2'] is nn.BatchNorm2d
    assert issubclass(kinds['backbone.layer2.1.bn2'], DMSOp)


def test_hooks_reach_the_parts_of_the_architecture(search):
    assert search.head is search.architecture.head
    search.head.use_bbox_aux = True  # as mmyolo's YOLOXModeSwitchHook
    assert search.architecture.head.use_bbox_aux
    twin = copy.deepcopy(search)
    assert twin.head is twin.architecture.head is not search.head
    assert not hasattr(search, 'module')
    with pytest.raises(AttributeError, match='no_such_part'):
        search.no_such_part  # noqa: B018


def test_sync_norms_are_searched_and_exported(zoo, randomize_structure):
    backbone = dict(norm_cfg=dict(type='SyncBN', requires_grad=True))
    architecture = zoo.cifar_resnet(18)
    architecture['backbone'].update(backbone)
    search = zoo.algorithm(architecture)
    modules = list(search.architecture.modules())
    norms = [m for m in modules if isinstance(m, nn.SyncBatchNorm)]
    assert norms and not any(type(m) is nn.BatchNorm2d for m in modules)
    parameters = {id(p) for p in search.parameters()}
    assert all(id(norm.weight) in parameters for norm in norms)
    others = zoo.algorithm(zoo.cifar_resnet(18)).mutator
    assert search.mutator.choice_template == others.choice_template
    randomize_structure(search.mutator)
    plain = plain_copy(search.architecture)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in plain.modules())
    if torch.__version__ >= '2':  # before, they refuse the CPU
        assert export_subnet(search).difference < 1e-5
