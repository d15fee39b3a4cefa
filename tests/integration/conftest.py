"""A small search on image files, run by the real tool."""

import copy
import datetime
import json
import logging
import os
import runpy
import sys
import uuid

import cv2
import numpy as np
import pytest

ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
TRAIN = os.path.join(ROOT, 'tools', 'train.py')


def _backbone():
    return dict(
        type='mmpretrain.ResNet_CIFAR',
        depth=18,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        stem_channels=8,
        base_channels=8,
    )


def _pipeline(*transforms):
    return [
        dict(type='mmpretrain.LoadImageFromFile'),
        *transforms,
        dict(type='mmpretrain.PackInputs'),
    ]


def _loader(folder, pipeline, shuffle):
    return dict(
        batch_size=8,
        num_workers=0,
        persistent_workers=False,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=dict(
            type='mmpretrain.CustomDataset',
            data_root=folder,
            with_label=True,
            pipeline=pipeline,
        ),
    )


class SmallSearch:
    """Configs of a search of seconds, with every kind of randomness."""

    def __init__(self, data):
        self.data = data

    def config(self, epochs=4, **changes):
        """A config as text can be written of it.

        Args:
            epochs (int): 6 iterations each.
            **changes: Top-level keys; dicts update.
        """
        architecture = dict(
            type='mmpretrain.ImageClassifier',
            backbone=_backbone(),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=2,
                in_channels=16,
                loss=dict(type='mmpretrain.CrossEntropyLoss'),
                topk=(1,),
            ),
            train_cfg=dict(augments=dict(type='mmpretrain.Mixup', alpha=0.3)),
        )
        augment = [
            dict(type='mmpretrain.RandomCrop', crop_size=16, padding=2),
            dict(type='mmpretrain.RandomFlip', prob=0.5),
        ]
        validation = _loader(self.data, _pipeline(), False)
        cfg = dict(
            default_scope='mmpretrain',
            custom_imports=dict(imports=['dms_mmrazor.plugin']),
            model=dict(
                type='mmrazor.DMSAlgorithm',
                architecture=architecture,
                mutator=dict(
                    type='mmrazor.DMSMutator',
                    parse_cfg=dict(demo_input=(1, 3, 16, 16)),
                ),
            ),
            data_preprocessor=dict(
                type='mmpretrain.ClsDataPreprocessor',
                num_classes=2,
                mean=[128.0] * 3,
                std=[64.0] * 3,
            ),
            train_dataloader=_loader(self.data, _pipeline(*augment), True),
            val_dataloader=validation,
            val_evaluator=dict(type='mmpretrain.Accuracy', topk=(1,)),
            train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
            val_cfg=dict(),
            optim_wrapper=dict(
                constructor='mmrazor.DMSOptimWrapperConstructor',
                optimizer=dict(
                    type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-4
                ),
            ),
            param_scheduler=[
                dict(
                    type='CosineAnnealingLR',
                    by_epoch=True,
                    T_max=epochs,
                    convert_to_iter_based=True,
                )
            ],
            custom_hooks=[
                dict(
                    type='mmrazor.ResourceHook',
                    target=0.5,
                    decay=0.5,
                    divisor=2,
                    interval=6,
                )
            ],
            randomness=dict(seed=0, deterministic=True),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=1)
            ),
            env_cfg=dict(cudnn_benchmark=False),
        )
        return merge(cfg, changes)


def merge(cfg, changes):
    """Nested dicts update each other; everything else is replaced."""
    cfg = copy.deepcopy(cfg)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(cfg.get(key), dict):
            cfg[key] = merge(cfg[key], value)
        else:
            cfg[key] = value
    return cfg


@pytest.fixture(scope='session')
def small_search(tmp_path_factory):
    """The search's data: two classes that differ in brightness."""
    folder = tmp_path_factory.mktemp('data')
    rng = np.random.RandomState(0)
    for index in range(48):
        image = rng.randint(0, 128, (16, 16, 3)) + 60 * (index % 2)
        image = image.astype(np.uint8)
        (folder / str(index % 2)).mkdir(exist_ok=True)
        cv2.imwrite(str(folder / str(index % 2) / f'{index}.png'), image)
    return SmallSearch(str(folder))


@pytest.fixture(scope='session')
def run_tool():
    """Run tools/train.py in a forked process, which has no imports to do."""
    import dms_mmrazor.plugin  # noqa: F401

    return start_training


def start_training(cfg, work_dir, *args, before=None):
    """Fork a process that trains.

    Args:
        cfg (dict | None): The config; None: what is there already.
        work_dir (Path): Its work dir; the process writes ``log.txt`` there.
        *args (str): More arguments of the tool.
        before (Callable, optional): Called in the process first.

    Returns:
        int: The process id.
    """
    from mmengine.config import Config
    from mmengine.logging import MMLogger

    os.makedirs(work_dir, exist_ok=True)
    path = os.path.join(work_dir, 'search.py')
    if isinstance(cfg, dict):
        Config(cfg).dump(path)
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        log = open(os.path.join(work_dir, 'log.txt'), 'a', buffering=1)
        sys.stdout = sys.stderr = log
        # A logger of an earlier test may hold its stream, which is closed:
        # `setStream` would flush it first and fail.
        for handler in MMLogger.get_current_instance().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.stream = log
        if before is not None:
            before()
        sys.argv = [TRAIN, path, '--work-dir', str(work_dir), *args]
        runpy.run_path(TRAIN, run_name='__main__')
        status = 0
    except SystemExit as error:
        status = error.code or 0
    except BaseException:  # everything belongs into the log
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


@pytest.fixture(scope='session')
def finished():
    """Wait for a process; its exit status, negative for a signal."""

    def wait(pid):
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            return -os.WTERMSIG(status)
        return os.WEXITSTATUS(status)

    return wait


@pytest.fixture(scope='session')
def same_result():
    """Assert that two trainings ended with the same bits."""
    import torch

    def last_state(folder):
        with open(os.path.join(folder, 'last_checkpoint')) as file:
            return torch.load(file.read().strip(), map_location='cpu')

    def compare(one, other):
        a, b = last_state(one), last_state(other)
        assert a['state_dict'].keys() == b['state_dict'].keys()
        for name, value in a['state_dict'].items():
            assert torch.equal(value, b['state_dict'][name]), name
        slots = [state['optimizer']['state'] for state in (a, b)]
        assert slots[0].keys() == slots[1].keys()
        for index, slot in slots[0].items():
            for name, value in slot.items():
                same = value == slots[1][index][name]
                assert same if value is None else same.all(), (index, name)
        yaml = [
            open(os.path.join(folder, 'subnet', 'subnet.yaml')).read()
            for folder in (one, other)
        ]
        assert yaml[0] == yaml[1]
        paths = [
            os.path.join(folder, 'subnet', 'subnet.pth')
            for folder in (one, other)
        ]
        weights = [torch.load(path)['state_dict'] for path in paths]
        for name, value in weights[0].items():
            assert torch.equal(value, weights[1][name]), name

    return compare


@pytest.fixture(scope='session')
def undisturbed(small_search, run_tool, finished, tmp_path_factory):
    """Work dir of the whole search."""
    folder = tmp_path_factory.mktemp('undisturbed')
    status = finished(run_tool(small_search.config(), folder))
    assert status == 0, (folder / 'log.txt').read_text()[-3000:]
    return folder


@pytest.fixture
def processes(tmp_path):
    """Call a function in forked processes that are one gloo group."""

    def call(function, world_size, *args):
        import torch

        rendezvous = tmp_path / 'rendezvous'
        if rendezvous.exists():  # of an earlier call
            rendezvous.unlink()
        pids = [
            _fork_rank(function, rank, world_size, tmp_path, args)
            for rank in range(world_size)
        ]
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        logs = [tmp_path / f'log_{rank}.txt' for rank in range(world_size)]
        assert not any(statuses), [path.read_text()[-3000:] for path in logs]
        return [
            torch.load(tmp_path / f'result_{rank}.pt')
            for rank in range(world_size)
        ]

    return call


def _fork_rank(function, rank, world_size, folder, args):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        import torch

        sys.stdout = sys.stderr = open(folder / f'log_{rank}.txt', 'w')
        torch.distributed.init_process_group(
            'gloo',
            init_method=f'file://{folder / "rendezvous"}',
            rank=rank,
            world_size=world_size,
            timeout=datetime.timedelta(seconds=40),
        )
        result = function(rank, world_size, *args)
        torch.save(result, folder / f'result_{rank}.pt')
        torch.distributed.barrier()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


@pytest.fixture
def make_runner(small_search, tmp_path):
    """A runner of the small search, in this process."""
    import torch
    from mmengine.config import Config
    from mmengine.runner import Runner

    import dms_mmrazor.plugin  # noqa: F401

    def make(work_dir=tmp_path, hooks=(), **changes):
        changes.setdefault('epochs', 1)
        cfg = small_search.config(**changes)
        cfg['custom_hooks'] += list(hooks)
        cfg['experiment_name'] = f'{work_dir.name}_{make.count}'
        make.count += 1
        return Runner.from_cfg(Config(dict(cfg, work_dir=str(work_dir))))

    make.count = 0
    yield make
    torch.use_deterministic_algorithms(False)


CLASSES = ('WBC', 'RBC', 'Platelets')
COLORS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))


def _write_split(folder, split, number, size=64):
    """Images of colored rectangles, with BCCD's layout and classes."""
    rng = np.random.RandomState(0)
    images, annotations = [], []
    for index in range(number):
        name = f'{split}_{index}.png'
        image = rng.randint(0, 60, (size, size, 3)).astype(np.uint8)
        images.append(dict(id=index, file_name=name, width=size, height=size))
        for label, color in enumerate(COLORS):
            x, y = rng.randint(0, size // 2, 2).tolist()
            width, height = rng.randint(size // 4, size // 2, 2).tolist()
            image[y : y + height, x : x + width] = color
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=index,
                    category_id=label + 1,
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(folder / 'images' / name), image)
    categories = [dict(id=i + 1, name=n) for i, n in enumerate(CLASSES)]
    content = dict(
        images=images, annotations=annotations, categories=categories
    )
    path = folder / 'annotations' / f'{split}.json'
    path.write_text(json.dumps(content))


@pytest.fixture(scope='session', autouse=True)
def config_text():
    """Leave configs as mmengine writes them: yapf takes longer than the rest.

    A runner formats its config for its log, its file and every checkpoint.
    """
    from mmengine.config import config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, 'FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(scope='session')
def coco_data(tmp_path_factory):
    """Folder of eight training and four validation images, 64x64."""
    folder = tmp_path_factory.mktemp('coco')
    for name in ('images', 'annotations'):
        (folder / name).mkdir()
    _write_split(folder, 'train', 8)
    _write_split(folder, 'val', 4)
    return folder


@pytest.fixture(scope='session')
def small_loaders():
    """Options for data loaders without processes."""

    def options(batch_size):
        changes = dict(
            batch_size=batch_size,
            num_workers=0,
            persistent_workers=False,
            pin_memory=False,
        )
        return {
            f'{split}_dataloader.{key}': value
            for split in ('train', 'val', 'test')
            for key, value in changes.items()
        }

    return options


@pytest.fixture(scope='session')
def read_config():
    """Read one of the package's configs with other settings.

    Called with a path below ``configs/``, the work dir, and options as for
    ``--cfg-options``.
    """
    from mmengine.config import Config

    import dms_mmrazor.plugin  # noqa: F401

    def read(path, work_dir, options):
        cfg = Config.fromfile(os.path.join(ROOT, 'configs', path))
        cfg.merge_from_dict(dict(options, log_level='WARNING'))
        cfg.work_dir = str(work_dir)
        cfg.experiment_name = uuid.uuid4().hex
        return cfg

    return read
