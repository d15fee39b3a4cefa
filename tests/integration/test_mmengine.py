"""mmengine's own hooks and options keep their meaning in a search."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook


def _resource_hook(runner):
    from dms_mmrazor.engine.hooks import ResourceHook

    return next(h for h in runner.hooks if isinstance(h, ResourceHook))


def _ema_hook(runner):
    from mmengine.hooks import EMAHook

    return next(h for h in runner.hooks if isinstance(h, EMAHook))


@pytest.mark.parametrize('update_buffers', [False, True])
def test_ema_averages_weights_and_exports_them(
    update_buffers, make_runner, tmp_path
):
    ema = dict(type='EMAHook', momentum=0.1, update_buffers=update_buffers)
    runner = make_runner(hooks=[ema], epochs=3)
    target = dict(macs=0.7, params=0.8)  # two resources: buffers of size 2
    _resource_hook(runner).wanted = target
    _resource_hook(runner).weights = dict(macs=1.0, params=1.0)
    runner.train()
    average = _ema_hook(runner).ema_model.module
    for a, b in zip(
        average.mutator.state_dict().values(),
        runner.model.mutator.state_dict().values(),
    ):
        assert torch.equal(a, b)
    weight = average.architecture.head.fc.weight
    assert not torch.equal(weight, runner.model.architecture.head.fc.weight)
    assert runner.model.mutator.topk.num_updates == 18
    exported = torch.load(tmp_path / 'subnet' / 'subnet.pth')['state_dict']
    kept = exported['head.fc.weight']
    columns = [(weight == kept[:, [i]]).all(0).any() for i in range(len(kept))]
    assert all(columns)


def test_ema_resumes_to_the_bit(
    small_search, run_tool, finished, same_result, tmp_path
):
    cfg = small_search.config(epochs=3)
    cfg['custom_hooks'].append(
        dict(type='EMAHook', momentum=0.1, update_buffers=True)
    )
    assert finished(run_tool(cfg, tmp_path / 'whole')) == 0
    assert finished(run_tool(cfg, tmp_path / 'again')) == 0
    last = tmp_path / 'again' / 'epoch_2.pth'
    assert (
        finished(run_tool(cfg, tmp_path / 'again', '--resume', str(last))) == 0
    )
    same_result(tmp_path / 'again', tmp_path / 'whole')


def test_clipping_leaves_the_structure_alone(make_runner):
    runner = make_runner(
        optim_wrapper=dict(clip_grad=dict(max_norm=1e-9)), epochs=2
    )
    before = copy.deepcopy(runner.model.architecture.state_dict())
    runner.model.init_weights = lambda: None
    runner.train()
    after = runner.model.architecture.state_dict()
    torch.testing.assert_close(
        before['head.fc.weight'], after['head.fc.weight'], rtol=1e-2, atol=1e-3
    )
    assert runner.model.mutator.topk.pruning_ratio.max() > 0.1


def test_early_stopping_exports(make_runner, tmp_path):
    stop = dict(
        type='EarlyStoppingHook',
        monitor='accuracy/top1',
        patience=1,
        min_delta=1000,
    )
    runner = make_runner(hooks=[stop], epochs=5)
    runner.train()
    assert runner.epoch < 5
    assert (tmp_path / 'subnet' / 'subnet.yaml').exists()


def test_frozen_stages_and_norm_eval(make_runner):
    from torch.nn.modules.batchnorm import _BatchNorm

    backbone = dict(frozen_stages=1, norm_eval=True)
    model = dict(architecture=dict(backbone=backbone))
    runner = make_runner(model=model, epochs=2)
    runner.train()
    backbone = runner.model.architecture.backbone
    backbone.train()
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(norm.training for norm in norms)
    frozen = [*backbone.conv1.parameters(), *backbone.layer1.parameters()]
    assert not any(p.requires_grad for p in frozen)
    assert all(p.requires_grad for p in backbone.layer2.parameters())
    assert all(torch.equal(n.running_mean, 0 * n.running_mean) for n in norms)
    assert runner.model.mutator.topk.pruning_ratio.max() > 0.1


@pytest.mark.skipif(
    not hasattr(torch, 'compile'), reason='mmengine needs torch 2 for it'
)
def test_compiled_search_is_the_same_and_compiled_once(make_runner):
    from torch._dynamo.utils import counters

    states, graphs = [], []

    class Count(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            graphs.append(counters['stats']['unique_graphs'])

    # Mixup and new learning rates add graphs in any training.
    changes = dict(
        model=dict(architecture=dict(train_cfg=None)), param_scheduler=[]
    )
    for option in (None, dict(backend='aot_eager')):
        counters.clear()
        graphs.clear()
        runner = make_runner(compile=option, epochs=1, **changes)
        runner.register_hook(Count())
        runner.train()
        states.append(runner.model.state_dict())
    # The second step makes the optimizer's momentum, in any training.
    assert graphs[0] > 0 and len(set(graphs[1:])) == 1
    assert states[1]['mutator.masks.topk.num_updates'] == 6
    for key, value in states[0].items():
        torch.testing.assert_close(
            states[1][key], value, rtol=1e-3, atol=1e-4, msg=key
        )


def test_compile_is_refused_on_several_processes():
    from dms_mmrazor.engine.config_keywords import refuse_unsupported
    from dms_mmrazor.errors import DMSError

    runner = SimpleNamespace(cfg=dict(compile=True), distributed=True)
    with pytest.raises(DMSError, match='`compile` is not supported'):
        refuse_unsupported(runner)


def test_flexible_runner_is_refused(
    small_search, run_tool, finished, tmp_path
):
    cfg = small_search.config(
        runner_type='FlexibleRunner',
        strategy=dict(type='SingleDeviceStrategy'),
    )
    assert finished(run_tool(cfg, tmp_path)) == 2
    log = (tmp_path / 'log.txt').read_text()
    assert '`runner_type=FlexibleRunner` is not supported' in log
    assert 'Traceback' not in log


def _depths(algorithm):
    """Outputs with all blocks and with none of those that can go."""
    masks = algorithm.mutator.masks
    image = torch.rand(
        2, 3, 16, 16, generator=torch.Generator().manual_seed(1)
    )
    algorithm.eval()
    found = []
    for value in (1.0, 0.0):
        mask = torch.ones_like(masks.mask)
        mask[masks.num_channels :] = value
        with masks.showing(mask), torch.no_grad():
            found.append(algorithm.architecture(image, mode='tensor')[0])
    return found


@pytest.mark.parametrize('revert', [False, True])
def test_sync_bn_keeps_the_depth_masks(
    revert, small_search, randomize_model, tmp_path
):
    from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm

    from dms_mmrazor.registry import MODELS
    from dms_mmrazor.supernet.plain import plain_copy

    algorithm = MODELS.build(small_search.config()['model'])
    randomize_model(algorithm.architecture)
    expected = _depths(algorithm)
    assert not torch.allclose(*expected)
    convert_sync_batchnorm(algorithm)
    if revert:
        revert_sync_batchnorm(algorithm)
    elif torch.__version__ < '2':
        pytest.skip('its SyncBatchNorm refuses the CPU in evaluation')
    lost = _depths(algorithm)
    assert torch.allclose(*lost)  # what mmengine does
    for _ in range(2):  # once is enough, twice does no harm
        algorithm.mutator.restore_masks(algorithm.architecture)
    for found, wanted in zip(_depths(algorithm), expected):
        torch.testing.assert_close(found, wanted)
    plain = plain_copy(algorithm.architecture)
    assert not any(module._forward_hooks for module in plain.modules())


def test_structure_is_logged_under_stable_names(make_runner, tmp_path):
    runner = make_runner(epochs=2)
    runner.train()
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in path.read_text().splitlines()]
    logged = [record for record in records if 'dms/macs' in record]
    assert [record['step'] for record in logged] == [6, 12]
    mutator = runner.model.mutator
    assert logged[-1]['dms/macs'] == mutator.resource('macs')
    for name, kept in mutator.current_choices.items():
        assert logged[-1][f'dms/kept/{name}'] == kept
    trained = [record for record in records if 'loss_macs' in record]
    assert {'macs_ratio', 'macs_target'} <= set(trained[-1])


def test_best_checkpoint_and_profiler(make_runner, tmp_path):
    profiler = dict(
        type='ProfilerHook',
        by_epoch=False,
        profile_times=2,
        activity_with_cuda=False,
        json_trace_path=str(tmp_path / 'trace.json'),
    )
    runner = make_runner(
        hooks=[profiler],
        epochs=2,
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', interval=1, save_best='accuracy/top1'
            )
        ),
    )
    runner.train()
    assert list(tmp_path.glob('best_accuracy_top1_epoch_*.pth'))
    assert (tmp_path / 'trace.json').stat().st_size > 0
    assert (tmp_path / 'subnet' / 'subnet.yaml').is_file()
