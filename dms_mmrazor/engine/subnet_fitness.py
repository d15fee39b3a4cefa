"""What a structure is worth with the weights of its supernet."""

import time
from copy import deepcopy
from typing import Any, Dict, Mapping, Optional, Sized

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Subset

from dms_mmrazor.engine.metric_choice import chosen_score
from dms_mmrazor.errors import DMSError, check_flag
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.registry import HOOKS, TASK_UTILS
from dms_mmrazor.search.recalibration import has_statistics, recalibrate_norms
from dms_mmrazor.subnet import pruned_copy
from dms_mmrazor.supernet.plain import plain_copy
from dms_mmrazor.type_names import type_name


@TASK_UTILS.register_module()
class SubnetAccuracy:
    """Evaluates a subnet on a part of the training data.

    The contract of a fitness in ``train_cfg.fitness``: it is made with the
    runner and its settings, and called with the choices and the plain
    subnet; it returns a dict with a number ``score``, larger is better, and
    whatever else belongs into the file of candidates.

    Args:
        runner (Runner): Of the search.
        images (int): So many of the training data, the same ones for every
            subnet. Defaults to 2000.
        metric (str, optional): Of the evaluator. Defaults to None, its
            first.
        lower_is_better (bool, optional): Of the metric. Defaults to None,
            what its name tells: see :func:`is_lower_better`.
        dataloader (dict, optional): Evaluated instead. Defaults to None,
            training data with the pipeline of ``val_dataloader``, or of
            ``test_dataloader`` without one.
        evaluator (dict | list, optional): Defaults to None,
            ``val_evaluator``, or ``test_evaluator`` without one.

    Raises:
        DMSError: If a setting cannot be meant, or there is nothing to
            evaluate with.
    """

    def __init__(
        self,
        runner: Runner,
        images: int = 2000,
        metric: Optional[str] = None,
        lower_is_better: Optional[bool] = None,
        dataloader: Optional[Dict[str, Any]] = None,
        evaluator: Any = None,
    ) -> None:
        if lower_is_better is not None:
            check_flag('fitness.lower_is_better', lower_is_better)
        for key in ('val_evaluator', 'test_evaluator'):
            evaluator = evaluator or runner.cfg.get(key)
        if not evaluator:
            raise DMSError(
                'the config has no `val_evaluator` to judge subnets with: '
                "add one, or `train_cfg.fitness=dict(type='mmrazor."
                "SubnetAccuracy', evaluator=…)`."
            )
        self.metric = metric
        self.lower_is_better = lower_is_better
        self.evaluator = runner.build_evaluator(evaluator)
        if dataloader is not None:
            self.loader = runner.build_dataloader(dataloader, seed=0)
        else:
            self.loader = training_part(runner, images, 'fitness.images')
        meta = getattr(self.loader.dataset, 'metainfo', None)
        self.evaluator.dataset_meta = meta

    @torch.no_grad()
    def __call__(
        self, choices: Mapping[str, int], subnet: nn.Module
    ) -> Dict[str, float]:
        """Evaluate a subnet.

        Raises:
            DMSError: If the evaluator has no such metric, or its direction
                is not known.
        """
        subnet.eval()
        for batch in self.loader:
            outputs = subnet.test_step(batch)
            self.evaluator.process(data_samples=outputs, data_batch=batch)
        number = len(self.loader.dataset)
        metrics = self.evaluator.evaluate(number)
        score = chosen_score(
            metrics, self.metric, self.lower_is_better, '`fitness.metric`'
        )
        return {
            'score': score,
            'forward_images': number,
        }


class NormRecalibration:
    """Computes the norms of subnets anew on a part of the training data.

    Args:
        runner (Runner): Of the search.
        images (int): So many, those behind the part that is evaluated on;
            0: norms stay the supernet's.
    """

    def __init__(self, runner: Runner, images: int) -> None:
        self.loader = None
        if images and has_statistics(runner.model):
            key = 'train_cfg.recalibrate'
            self.loader = training_part(runner, images, key, last=True)

    def __call__(self, subnet: nn.Module) -> int:
        """Recalibrate a model of mmengine; the number of images it took."""
        if self.loader is None:
            return 0

        def forward(batch: Any) -> None:
            data = subnet.data_preprocessor(batch, False)
            subnet(**data, mode='tensor')

        norms = recalibrate_norms(subnet, self.loader, forward)
        return len(self.loader.dataset) if norms else 0


@HOOKS.register_module()
class RecalibrateNormsHook(Hook):
    """Computes the statistics of batch norms anew before a test.

    For subnets of a structure-only search (DMS paper, Table 1), whose
    weights stay what they were in the supernet::

        custom_hooks = [dict(type='mmrazor.RecalibrateNormsHook')]

    Args:
        images (int): Of the training data, with the pipeline of
            ``val_dataloader``. Defaults to 4096.
    """

    def __init__(self, images: int = 4096) -> None:
        self.images = images

    def before_test(self, runner: Runner) -> None:
        """Recalibrate the model that is tested."""
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        seen = NormRecalibration(runner, self.images)(model)
        runner.logger.info(f'Norms recalibrated on {seen} images.')


class SubnetJudge:
    """Cuts a subnet out, recalibrates it and asks the fitness.

    Args:
        runner (Runner): Of the search.
        algorithm (DMSAlgorithm): Its supernet is not changed.
        recalibrate (int): Images for the norms.
        fitness (dict): Config of the fitness.
    """

    def __init__(
        self,
        runner: Runner,
        algorithm: DMSAlgorithm,
        recalibrate: int,
        fitness: Dict[str, Any],
    ) -> None:
        self.algorithm = algorithm
        self.recalibrate = NormRecalibration(runner, recalibrate)
        self.fitness = TASK_UTILS.build(
            fitness, default_args=dict(runner=runner)
        )

    def __call__(self, choices: Dict[str, int]) -> Dict[str, float]:
        """Score, images and seconds of a structure."""
        started = time.time()
        algorithm = self.algorithm
        structure = algorithm.mutator.structure(choices)
        plain = plain_copy(algorithm.architecture, share=True)
        subnet = pruned_copy(plain, structure)
        images = self.recalibrate(subnet)
        result = dict(self.fitness(choices, subnet))
        forward = result.get('forward_images', 0) + images
        result['forward_images'] = forward
        result['seconds'] = round(time.time() - started, 3)
        return result


def training_part(
    runner: Runner, images: int, key: str, last: bool = False
) -> DataLoader:
    """A fixed part of the training data, without augmentation.

    The part is the same whatever the seed of the search. Images come in the
    order of one permutation, so that the first and the last ones are
    different images as long as there are enough.

    Args:
        runner (Runner): Its config has ``train_dataloader`` and
            ``val_dataloader``, whose pipeline and batch size are used.
        images (int): So many, or all if there are fewer.
        key (str): The setting, for messages.
        last (bool): Take the last ones of the permutation. Defaults to
            False.

    Raises:
        DMSError: If a part cannot be taken.
    """
    if not isinstance(images, int) or images < 1:
        raise DMSError(f'`{key}` must be an int >= 1, got {images!r}.')
    advice = 'write `train_cfg.fitness.dataloader`, and `recalibrate=0`'
    loader = _evaluating_loader(runner.cfg, key, advice)
    whole = runner.build_dataloader(loader, seed=0).dataset
    if not isinstance(whole, Sized):
        raise DMSError(
            f'`{key}`: no part can be taken of a {type(whole).__name__}, '
            f'which has no length: {advice}.'
        )
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(whole), generator=generator).tolist()
    chosen = order[-images:] if last else order[:images]
    if hasattr(whole, 'get_subset'):
        loader['dataset'] = whole.get_subset(sorted(chosen))
    else:
        loader['dataset'] = Subset(whole, sorted(chosen))
    loader['sampler'] = dict(type='DefaultSampler', shuffle=False)
    return runner.build_dataloader(loader, seed=0)


def _evaluating_loader(cfg: Config, key: str, advice: str) -> Dict[str, Any]:
    """A loader of the training data with the pipeline of the validation.

    Args:
        cfg (Config): Of the search.
        key (str): The setting that needs it, for messages.
        advice (str): What to write instead.

    Raises:
        DMSError: If the config lacks one of them.
    """
    loader = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    train = cfg.get('train_dataloader')
    if not loader or not train:
        raise DMSError(
            f'`{key}` needs `train_dataloader`, and the pipeline of '
            f'`val_dataloader`, which the config lacks: {advice}.'
        )
    loader, dataset = deepcopy(loader), deepcopy(train['dataset'])
    if type_name(dataset) == type_name(loader['dataset']) and not (
        'pipeline' in dataset or 'pipeline' in loader['dataset']
    ):
        loader['dataset'] = dataset  # has no augmentation: windows of tokens
        return loader
    if 'pipeline' not in dataset or 'pipeline' not in loader['dataset']:
        raise DMSError(
            f'`{key}`: `train_dataloader.dataset` is a '
            f'{type_name(dataset)}, whose pipeline is not in sight: {advice}.'
        )
    dataset['pipeline'] = loader['dataset']['pipeline']
    loader['dataset'] = dataset
    return loader
