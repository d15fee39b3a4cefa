"""YOLOv8's own configs on tiny data: all of mmyolo's training at work."""

import os
import signal

import pytest
import torch
from mmengine.hooks import EMAHook, Hook

SIZE = 96
CONFIG = 'yolov8/yolov8_d50w25{}_fast_1xb8-16e_bccd.py'
LR = 0.05
MODERN = int(torch.__version__.split('.')[0]) >= 2


@pytest.fixture(scope='module')
def yolo(coco_data, small_loaders, read_config):
    """Make a config: small in width and images, 4 iterations per epoch."""
    train = 'train_dataloader.dataset.pipeline'
    switched = 'custom_hooks.1.switch_pipeline'
    sizes = {
        f'{train}.2.img_scale': (SIZE, SIZE),
        f'{train}.3.border': (-SIZE // 2, -SIZE // 2),
        f'{switched}.2.scale': (SIZE, SIZE),
        f'{switched}.3.scale': (SIZE, SIZE),
    }
    for split in ('val', 'test'):
        for index in (1, 2):
            name = f'{split}_dataloader.dataset.pipeline.{index}.scale'
            sizes[name] = (SIZE, SIZE)

    def make(kind, work_dir, epochs=3, **options):
        os.environ['BCCD_ROOT'] = f'{coco_data}/'
        options.update(small_loaders(2))
        options.update(sizes)
        options.update(
            {
                'train_cfg.max_epochs': epochs,
                'train_cfg.val_interval': epochs,
                'train_cfg.dynamic_intervals': None,
                'default_hooks.param_scheduler.max_epochs': epochs,
                'default_hooks.checkpoint.interval': 1,
                'default_hooks.checkpoint.max_keep_ckpts': -1,
                'custom_hooks.1.switch_epoch': epochs - 1,
            }
        )
        for part in ('backbone', 'neck', 'bbox_head.head_module'):
            name = f'model.architecture.{part}.widen_factor'
            options[name] = 0.125
        try:
            cfg = read_config(CONFIG.format(kind), work_dir, options)
        finally:
            del os.environ['BCCD_ROOT']
        cfg.custom_imports = dict(imports=['dms_mmrazor.plugin'])
        if kind == '_dms-search':
            cfg.model.mutator.parse_cfg.demo_input = (1, 3, SIZE, SIZE)
            cfg.custom_hooks[2].update(target=0.5, divisor=2, interval=4)
        return cfg

    return make


class Recorder(Hook):
    """Notes what the optimizer and the averaged model are in each step."""

    priority = 'LOWEST'

    def __init__(self):
        self.groups = []
        self.ratios = []
        self.masks_agree = []
        self.pipelines = []

    def before_train_epoch(self, runner):
        transforms = runner.train_dataloader.dataset.pipeline.transforms
        self.pipelines.append([type(t).__name__ for t in transforms])

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        keys = ('lr', 'momentum', 'weight_decay')
        self.groups.append([[group[k] for k in keys] for group in groups])

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        topk = runner.model.mutator.topk
        self.ratios.append(topk.pruning_ratio.detach().clone())

    def after_val_iter(self, runner, batch_idx, data_batch, outputs):
        masks = torch.cat(list(runner.model.mutator.masks.table.masks))
        hard = runner.model.mutator.topk.hard_mask()
        self.masks_agree.append(bool((masks == hard).all()))


@pytest.fixture(scope='module')
def search(yolo, tmp_path_factory):
    """A finished search and its records."""
    from mmengine.runner import Runner

    cfg = yolo('_dms-search', tmp_path_factory.mktemp('search'))
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    return runner, recorder


def test_weights_keep_the_schedule_of_mmyolo(search):
    runner, recorder = search
    assert len(recorder.groups) == 12
    convs, norms, biases = zip(*recorder.groups)
    for rows in (convs, norms, biases):  # mmyolo's schedule
        assert len({row[0] for row in rows}) > 3
    assert convs[0][0] == 0 and biases[0][0] == pytest.approx(0.1)
    assert convs[0][1] == pytest.approx(0.8)  # momentum of the warm-up
    assert convs[0][2] > 0 == norms[0][2] == biases[0][2]


def test_structure_moves_in_every_epoch(search):
    runner, recorder = search
    ends = recorder.ratios[3::4]
    for before, after in zip(ends, ends[1:]):
        assert not torch.equal(before, after)
    assert recorder.ratios[-1].max() > 0.1
    assert runner.model.mutator.topk.num_updates == 12


def test_average_has_the_structure_of_the_search(search):
    runner, recorder = search
    hook = next(h for h in runner.hooks if isinstance(h, EMAHook))
    average = hook.ema_model.module
    assert average.mutator is runner.model.mutator
    assert recorder.masks_agree and all(recorder.masks_agree)
    weights = [
        dict(model.architecture.named_parameters())
        for model in (average, runner.model)
    ]
    differ = [n for n in weights[0] if not weights[0][n].equal(weights[1][n])]
    assert len(differ) > 50


def test_pipeline_is_switched_and_coco_evaluated(search):
    runner, recorder = search
    mosaic = ['Mosaic' in pipeline for pipeline in recorder.pipelines]
    # mmdet's hook has run when the recorder looks.
    assert mosaic == [True, True, False]
    assert all('Albu' in pipeline for pipeline in recorder.pipelines)
    assert 'val/coco/bbox_mAP' in runner.message_hub.log_scalars


def test_export_is_what_was_evaluated(search, yolo, tmp_path):
    """The exported detector equals the averaged supernet, boxes included."""
    from mmengine.registry import MODELS
    from mmengine.runner import load_checkpoint

    from dms_mmrazor.engine.runner_access import validated_weights
    from dms_mmrazor.subnet import load_structure, prune
    from dms_mmrazor.supernet.difference import max_difference
    from dms_mmrazor.supernet.plain import plain_copy

    runner, _ = search
    folder = f'{runner.work_dir}/subnet/subnet'
    cfg = yolo('_dms-retrain', tmp_path)
    detector = MODELS.build(dict(cfg.model, structure=f'{folder}.yaml'))
    load_checkpoint(detector, f'{folder}.pth')
    assert type(detector).__name__ == 'YOLODetector'
    with validated_weights(runner):
        average = plain_copy(runner.model.architecture)
    subnet = prune(average, load_structure(f'{folder}.yaml'))
    image = torch.rand(2, 3, SIZE, SIZE)
    assert max_difference(subnet, detector, image) < 1e-6


def test_the_written_config_opens_as_a_detector(search):
    from mmdet.apis import init_detector

    runner, _ = search
    folder = f'{runner.work_dir}/subnet'
    detector = init_detector(
        f'{folder}/retrain.py', f'{folder}/subnet.pth', device='cpu'
    )
    assert detector.dataset_meta['classes'] == ('WBC', 'RBC', 'Platelets')


def test_retraining(search, yolo, tmp_path):
    from mmengine.runner import Runner

    runner, _ = search
    cfg = yolo('_dms-retrain', tmp_path, epochs=1)
    cfg.model.structure = f'{runner.work_dir}/subnet/subnet.yaml'
    cfg.model.init_cfg = dict(
        type='Pretrained', checkpoint=f'{runner.work_dir}/subnet/subnet.pth'
    )
    retraining = Runner.from_cfg(cfg)
    retraining.train()
    hub = retraining.message_hub
    assert torch.isfinite(torch.tensor(hub.get_scalar('train/loss').current()))
    assert 'val/coco/bbox_mAP' in hub.log_scalars
    groups = retraining.optim_wrapper.optimizer.param_groups
    assert len(groups) == 3


@pytest.mark.skipif(not MODERN, reason='no bfloat16 BatchNorm on the CPU')
def test_bf16(yolo, tmp_path, monkeypatch):
    from mmengine.optim.optimizer import amp_optimizer_wrapper
    from mmengine.runner import Runner

    monkeypatch.setattr(
        amp_optimizer_wrapper, 'is_cuda_available', lambda: True
    )
    cfg = yolo('_dms-search', tmp_path, epochs=1)
    cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    topk = runner.model.mutator.topk
    assert topk.num_updates == 4 and topk.pruning_ratio.max() > 0.01
    assert torch.isfinite(topk.importance).all() and topk.importance.any()
    assert (tmp_path / 'subnet' / 'subnet.yaml').is_file()


def _build_synchronized(rank, world_size, cfg):
    from mmengine.registry import MODELS, init_default_scope
    from torch import nn

    from dms_mmrazor.supernet.plain import plain_copy

    init_default_scope('mmyolo')
    search = MODELS.build(cfg)
    modules = list(search.architecture.modules())
    plain = plain_copy(search.architecture)
    return dict(
        sync=sum(isinstance(m, nn.SyncBatchNorm) for m in modules),
        units=len(search.mutator.units),
        stages=len(search.mutator.depth_units),
        left=sum(isinstance(m, nn.SyncBatchNorm) for m in plain.modules()),
    )


def test_norms_of_several_processes(search, yolo, processes, tmp_path):
    """mmyolo's detector synchronizes its norms when it is built."""
    cfg = yolo('_dms-search', tmp_path)
    mutator = search[0].model.mutator
    for found in processes(_build_synchronized, 2, cfg.model):
        assert found['sync'] > 50 and found['left'] == 0
        assert found['units'] == len(mutator.units)
        assert found['stages'] == len(mutator.depth_units)


def _kill_in_second_epoch():
    from dms_mmrazor.engine.hooks import ResourceHook

    original = ResourceHook.before_train_iter

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, runner, batch_idx, data_batch)

    ResourceHook.before_train_iter = before_train_iter


def test_killed_search_resumes_to_the_bit(yolo, run_tool, finished, tmp_path):
    """Weights, their averages, structure, target, optimizer: all the same."""
    from dms_mmrazor.engine.search_settings import KEY

    ends, found = [], []
    for name in ('whole', 'killed'):
        folder = tmp_path / name
        folder.mkdir()
        cfg = yolo('_dms-search', folder, epochs=2)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.randomness = dict(seed=0)
        cfg.dump(folder / 'search.py')
        if name == 'killed':
            pid = run_tool(None, folder, before=_kill_in_second_epoch)
            assert finished(pid) == -signal.SIGKILL
            assert not (folder / 'epoch_2.pth').exists()
        resume = ['--resume'] if name == 'killed' else []
        assert finished(run_tool(None, folder, *resume)) == 0
        found.append((folder / 'subnet' / 'subnet.yaml').read_text())
        ends.append(torch.load(folder / 'epoch_2.pth', map_location='cpu'))
    whole, resumed = ends
    for part in ('state_dict', 'ema_state_dict'):
        assert whole[part].keys() == resumed[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(resumed[part][name], value), (part, name)
    groups = [end['optimizer']['param_groups'] for end in ends]
    assert groups[0] == groups[1]
    assert whole[KEY] == resumed[KEY]
    assert whole[KEY]['settings']['target.macs'] == 0.5
    assert found[0] == found[1]
