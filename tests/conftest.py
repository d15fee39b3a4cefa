"""Models and data shared by the tests.

Everything heavy is imported inside the fixtures: the tests of the core run
without any framework.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import uuid

# Before torch is imported, here and in subprocesses: with several processes
# on few cores, threads that wait for each other take longer than the work.
os.environ['OMP_NUM_THREADS'] = '1'

import copy  # noqa: E402
from typing import Any, Callable, Dict, Iterator, List  # noqa: E402

import pytest  # noqa: E402

Config = Dict[str, Any]


def classifier(
    backbone: Config, channels: int, num_classes: int = 10
) -> Config:
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=num_classes,
            in_channels=channels,
            loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
            topk=(1,),
        ),
    )


def resnet(depth: int, num_classes: int = 1000, **kwargs: Any) -> Config:
    backbone = dict(type='mmpretrain.ResNet', depth=depth, **kwargs)
    channels = 512 if depth < 50 else 2048
    return classifier(backbone, channels, num_classes)


def cifar_resnet(depth: int = 34, num_classes: int = 10) -> Config:
    backbone = dict(
        type='mmpretrain.ResNet_CIFAR',
        depth=depth,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        stem_channels=16,
        base_channels=16,
    )
    return classifier(backbone, 64, num_classes)


def vit(
    channels: int, layers: int, heads: int, patch_size: int = 16
) -> Config:
    """A small vision transformer for images of 32 x 32."""
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=channels,
                num_layers=layers,
                num_heads=heads,
                feedforward_channels=2 * channels,
            ),
            img_size=32,
            patch_size=patch_size,
        ),
        head=dict(
            type='mmpretrain.VisionTransformerClsHead',
            num_classes=10,
            in_channels=channels,
            topk=(1,),
        ),
    )


@pytest.fixture(autouse=True)
def same_start() -> Iterator[None]:
    """Each test begins with the same seeds and without a default scope."""
    random.seed(0)
    if 'torch' in sys.modules:
        sys.modules['torch'].manual_seed(0)
    yield
    if 'mmengine' in sys.modules:
        from mmengine.registry import DefaultScope

        DefaultScope._instance_dict.clear()


class Zoo:
    """Configs of architectures, models and searches.

    ``algorithm`` keeps what it has built and returns copies: tracing the
    same model again would show nothing new.
    """

    classifier = staticmethod(classifier)
    resnet = staticmethod(resnet)
    cifar_resnet = staticmethod(cifar_resnet)
    vit = staticmethod(vit)

    def __init__(self) -> None:
        self._built: Dict[str, Any] = {}

    def plain(self, architecture: Config) -> Any:
        """A plain model with initialized weights."""
        from dms_mmrazor.registry import MODELS

        model = MODELS.build(copy.deepcopy(architecture))
        model.init_weights()
        return model

    def algorithm(
        self, architecture: Config, size: int = 32, **kwargs: Any
    ) -> Any:
        """A search of an architecture.

        Args:
            architecture (dict): Config of a plain model.
            size (int): Height and width of the images.
            **kwargs: ``mutator`` (dict) updates the mutator's config, the
                rest goes to the algorithm.
        """
        from dms_mmrazor.registry import MODELS

        mutator = dict(
            type='mmrazor.DMSMutator',
            parse_cfg=dict(demo_input=(1, 3, size, size)),
        )
        mutator.update(kwargs.pop('mutator', {}))
        cfg = dict(
            type='mmrazor.DMSAlgorithm',
            architecture=architecture,
            mutator=mutator,
            **kwargs,
        )
        key = repr(cfg)
        if key not in self._built:
            self._built[key] = MODELS.build(copy.deepcopy(cfg))
        return copy.deepcopy(self._built[key])


@pytest.fixture(scope='session')
def zoo() -> Zoo:
    import dms_mmrazor.plugin  # noqa: F401

    return Zoo()


@pytest.fixture(scope='session')
def follow_advice() -> Callable[..., Any]:
    """Do what errors say about `mutator.exclude` until there is none."""
    import re

    from dms_mmrazor.errors import DMSError

    def follow(prepare: Callable[..., Any]) -> Any:
        """What was excluded, and what ``prepare(exclude=…)`` returned."""
        try:
            return [], prepare()
        except DMSError as error:
            advice = re.search(r'`mutator\.exclude=\[(.*?)\]`', str(error))
            if advice is None:
                raise
        # The advice is followed once, to the letter: it has to do.
        excluded = re.findall(r"'(.*?)'", advice.group(1))
        return excluded, prepare(exclude=excluded)

    return follow


@pytest.fixture(scope='session')
def randomize_model() -> Callable[..., None]:
    """Give a model weights, statistics and affine parameters of a seed."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    def randomize(model: Any, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def uniform(tensor: Any, low: float, high: float) -> None:
            values = torch.rand(tensor.shape, generator=generator)
            tensor.data.copy_(low + (high - low) * values)

        for module in model.modules():
            if isinstance(module, _BatchNorm):
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.5, 0.5)
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.5, 2.0)

    return randomize


@pytest.fixture(scope='session')
def randomize_structure() -> Callable[..., Dict[str, int]]:
    """Give a mutator random importances, widths and depths of a seed."""
    import torch

    def randomize(mutator: Any, seed: int = 0) -> Dict[str, int]:
        generator = torch.Generator().manual_seed(seed)
        importance = mutator.topk.importance
        importance.copy_(torch.rand(importance.shape, generator=generator))
        rng = random.Random(seed)
        choices = {}
        for unit in mutator.units:
            low, high = unit.min_kept, unit.max_kept
            choices[unit.name] = rng.randint(low, high)
        for stage in mutator.depth_units:
            choices[stage.name] = rng.randint(
                stage.min_blocks, stage.max_blocks
            )
        mutator.set_choices(choices)
        return choices

    return randomize


@pytest.fixture(scope='session')
def batch() -> Callable[..., Config]:
    """A batch of random images with labels, as a classifier takes it."""

    def make(
        number: int = 4, size: int = 32, num_classes: int = 10, seed: int = 0
    ) -> Config:
        import torch
        from mmpretrain.structures import DataSample

        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(number, 3, size, size, generator=generator)
        labels = torch.randint(num_classes, (number,), generator=generator)
        samples: List[Any] = [
            DataSample().set_gt_label(label) for label in labels
        ]
        return dict(inputs=images, data_samples=samples)

    return make


@pytest.fixture(scope='session')
def complexity() -> Callable[[Any, int], Dict[str, int]]:
    """Count a plain model with mmengine: MACs of conv and linear layers."""

    def count(model: Any, size: int) -> Dict[str, int]:
        import torch
        from mmengine.analysis import FlopAnalyzer, parameter_count

        training = model.training
        analyzer = FlopAnalyzer(model.eval(), torch.zeros(1, 3, size, size))
        analyzer.unsupported_ops_warnings(False)
        operators = analyzer.by_operator()
        model.train(training)
        return dict(
            macs=operators['conv'] + operators['linear'],
            params=parameter_count(model)[''],
        )

    return count


@pytest.fixture(scope='session')
def digits(tmp_path_factory: Any) -> str:
    """Scikit-learn's digits as PNG files of 32x32: ``train/<class>/*.png``."""
    import cv2
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp('digits')
    data = load_digits()
    for index in range(240):
        folder = root / 'train' / str(data.target[index])
        folder.mkdir(parents=True, exist_ok=True)
        image = (data.images[index] * 15).astype('uint8')
        image = cv2.resize(image, (32, 32))
        cv2.imwrite(str(folder / f'{index}.png'), image)
    return str(root)


@pytest.fixture(scope='session')
def search_config(digits: str) -> Callable[..., Config]:
    """Config of a search on the digits, to be given to mmengine's Runner."""

    def make(
        architecture: Config,
        work_dir: Any,
        iterations: int = 4,
        batch_size: int = 8,
        hook: Any = None,
        **kwargs: Any,
    ) -> Config:
        pipeline = [
            dict(type='mmpretrain.LoadImageFromFile'),
            dict(type='mmpretrain.PackInputs'),
        ]
        dataset = dict(
            type='mmpretrain.CustomDataset',
            data_root=digits,
            data_prefix='train',
            with_label=True,
            pipeline=pipeline,
        )
        parse_cfg = dict(demo_input=(1, 3, 32, 32))
        cfg = dict(
            model=dict(
                type='mmrazor.DMSAlgorithm',
                architecture=architecture,
                mutator=dict(type='mmrazor.DMSMutator', parse_cfg=parse_cfg),
            ),
            data_preprocessor=dict(
                type='mmpretrain.ClsDataPreprocessor',
                num_classes=10,
                mean=[78.0] * 3,
                std=[80.0] * 3,
            ),
            train_dataloader=dict(
                batch_size=batch_size,
                num_workers=0,
                sampler=dict(type='mmengine.InfiniteSampler', shuffle=True),
                dataset=dataset,
            ),
            train_cfg=dict(by_epoch=False, max_iters=iterations),
            optim_wrapper=dict(
                optimizer=dict(
                    type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4
                ),
            ),
            param_scheduler=[
                dict(
                    type='CosineAnnealingLR', by_epoch=False, T_max=iterations
                )
            ],
            default_hooks=dict(
                checkpoint=None, logger=dict(type='LoggerHook', interval=1)
            ),
            custom_hooks=[
                dict(type='mmrazor.ResourceHook', **(hook or dict(target=0.5)))
            ],
            log_level='WARNING',
            randomness=dict(seed=0),
            default_scope='mmpretrain',
            experiment_name=uuid.uuid4().hex,
            work_dir=str(work_dir),
        )
        cfg.update(kwargs)
        return cfg

    return make


_PROBE = """<script>window.onload = () => parent.postMessage(JSON.stringify({
width: innerWidth, needed: document.documentElement.scrollWidth,
pictures: document.querySelectorAll('[role=img]').length}), '*');</script>
</head>"""
_FRAME = """<title>-</title><script>window.onmessage = (event) => {
document.title = event.data; };</script>
<iframe src="page.html" width="%d" height="900" style="border: 0"></iframe>"""


@pytest.fixture
def open_page(tmp_path: Any) -> Callable[..., Dict[str, int]]:
    """Open a page in a headless browser, in a frame of some width."""
    chromium = shutil.which('chromium') or shutil.which('google-chrome')
    if chromium is None:
        pytest.skip('no Chromium to open a page')

    def open_in_frame(page: str, width: int) -> Dict[str, int]:
        """Width, needed width and pictures; no message on the console."""
        content = page.replace('</head>', _PROBE, 1)
        (tmp_path / 'page.html').write_text(content, encoding='utf-8')
        frame = tmp_path / f'frame{width}.html'
        frame.write_text(_FRAME % width, encoding='utf-8')
        flags = 'headless no-sandbox disable-gpu disable-quic no-first-run'
        flags += ' disable-sync disable-background-networking dump-dom'
        flags += ' disable-component-update enable-logging=stderr'
        found = subprocess.run(
            [
                *(chromium, '--window-size=1300,1000'),
                f'--user-data-dir={tmp_path / "profile"}',
                *(f'--{flag}' for flag in flags.split()),
                frame.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert 'CONSOLE' not in found.stderr
        title = re.search(r'<title>(.*?)</title>', found.stdout).group(1)
        return json.loads(title)

    return open_in_frame
