"""Models and data shared by the tests.

Everything heavy is imported inside the fixtures: the tests of the core run
without any framework.
"""

import os

# Before torch is imported, here and in subprocesses: with several processes
# on few cores, threads that wait for each other take longer than the work.
os.environ['OMP_NUM_THREADS'] = '1'

import copy  # noqa: E402
from typing import Any, Callable, Dict, List  # noqa: E402

import pytest  # noqa: E402

Config = Dict[str, Any]


def classifier(backbone: Config, channels: int, num_classes: int) -> Config:
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


class Zoo:
    """Configs of architectures, models and searches.

    ``algorithm`` keeps what it has built and returns copies: tracing the
    same model again would show nothing new.
    """

    resnet = staticmethod(resnet)
    cifar_resnet = staticmethod(cifar_resnet)

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
            type='DMSMutator', parse_cfg=dict(demo_input=(1, 3, size, size))
        )
        mutator.update(kwargs.pop('mutator', {}))
        cfg = dict(
            type='DMSAlgorithm',
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
    import random

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
