"""The runs of a comparison on the config of a search."""

import json
import os.path as osp
import time
from copy import deepcopy
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from dms_mmrazor.baselines import comparison as compare
from dms_mmrazor.baselines.masks import MASKS
from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.baselines.structures import STRUCTURES, Request
from dms_mmrazor.cli import command_line
from dms_mmrazor.cli.training_length import images_of, shorten
from dms_mmrazor.engine.loops.evolution_loop import CANDIDATES
from dms_mmrazor.engine.metric_choice import chosen_metric, chosen_score
from dms_mmrazor.engine.runner_access import plain_model
from dms_mmrazor.engine.search_config import (
    build_algorithm,
    find_resource_hook,
    override_target,
)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.registry import MODELS
from dms_mmrazor.search.export import WEIGHTS_FILE
from dms_mmrazor.subnet import (
    Structure,
    load_structure,
    prune,
    save_structure,
)
from dms_mmrazor.type_names import has_type, type_name

TAYLOR_BATCHES = 50

CONSTRUCTOR = 'DMSOptimWrapperConstructor'


class ConfigRuns:
    """Does the runs of a comparison by mmengine's runner.

    Args:
        study (Study): Where files go.
        cfg (Config): Of a search.
        retrain (Config, optional): Trains a structure. Defaults to None:
            as the search trains its architecture.
        metric (str, optional): The score, a key of the evaluation's
            metrics. Defaults to None, their first.
    """

    def __init__(
        self,
        study: Study,
        cfg: Config,
        retrain: Optional[Config] = None,
        metric: Optional[str] = None,
    ) -> None:
        self.study = study
        self.cfg = cfg
        self.retrain = retrain
        self.metric = metric

    def __call__(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Do one run."""
        return getattr(self, run.kind)(run, needs)

    def supernet(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Train the architecture of the search, unmasked.

        As long as the search; for a search that starts from it as long as a
        structure is trained.
        """
        cfg = self.cfg
        if run.settings.get('whole_training') and self.retrain is not None:
            cfg = self.retrain
        cfg = plain_config(cfg, dict(self.cfg.model.architecture))
        runner = self._trained(cfg, run)
        weights = self.study.file(f'{run.name}.pth')
        model = plain_model(runner)
        torch.save({'state_dict': model.state_dict()}, weights)
        cost = round(time.process_time(), 1)
        return {'weights': weights, 'images': seen(runner), 'cost': cost}

    def found(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Find a structure: by a search, or without one."""
        options = compare.options_of(run, needs)
        cfg = deepcopy(self.cfg)
        cfg.merge_from_dict(options)
        override_target(cfg, f'{run.settings["target"]:g}')
        of_kind = {record['kind']: record for record in needs.values()}
        if run.settings['method'] in STRUCTURES:
            structure, images = self._constructed(cfg, run, of_kind)
        elif run.settings['method'] in compare.TRIED:
            structure, images = self._tried(cfg, run, of_kind)
        else:
            structure, images = self._searched(cfg, run, of_kind)
        path = self.study.file(f'{run.name}.yaml')
        save_structure(structure, path)
        cost = time.process_time()
        if _inherits(run.settings):
            base = needs[run.needs[-1]]['result']
            images, cost = images + base['images'], cost + base['cost']
        kind = next(k for k, v in structure.resources.items() if 'target' in v)
        result = {
            'structure': path,
            'found': run.name,
            'options': options,
            'ratio': structure.resources[kind]['ratio'],
            'images': images,
            'cost': round(cost, 1),
        }
        if 'finetune' in run.settings:
            result['weights'] = self._cut(run, structure, of_kind)
        return result

    def trained(self, run: Run, needs: Mapping[str, Record]) -> Dict[str, Any]:
        """Train a structure, from new or from cut weights, and test it."""
        (base,) = needs.values()
        path = base['result']['structure']
        if self.retrain is not None:
            cfg = deepcopy(self.retrain)
            cfg.model.structure = path
        else:
            model = dict(
                type='mmrazor.DMSSubModel',
                architecture=dict(self.cfg.model.architecture),
                structure=path,
            )
            cfg = plain_config(self.cfg, model)
        if 'finetune' in run.settings:
            self._start_finetuning(cfg, run, base['result']['weights'])
        runner = self._trained(cfg, run)
        result = {'found': base['name'], 'options': base['result']['options']}
        validated = cfg.get('val_dataloader') is not None
        if validated:
            metrics = runner.val_loop.run()
            result['val'] = chosen_metric(metrics, self.metric, '--metric')
        if run.settings['seed'] == compare.TUNING_SEED:
            if not validated:
                raise DMSError(
                    '--grid chooses by `val_dataloader`, which the config '
                    'lacks.'
                )
            result['judged'] = chosen_score(
                metrics,
                self.metric,
                run.settings['lower_is_better'],
                '--metric',
            )
        if cfg.get('test_dataloader') is not None:
            result['score'] = chosen_metric(
                runner.test(), self.metric, '--metric'
            )
        else:
            result['score'] = result['val']
        return {**result, 'images': seen(runner)}

    def _cut(
        self, run: Run, structure: Structure, needs: Mapping[str, Record]
    ) -> str:
        """File of the weights that a structure starts its finetuning from.

        A search has trained on; all else is cut out of the whole network.
        """
        if searches(run.settings['method']):
            return osp.join(self.study.file(run.name), 'subnet', WEIGHTS_FILE)
        model = MODELS.build(dict(self.cfg.model.architecture))
        trained = torch.load(needs['supernet']['result']['weights'])
        model.load_state_dict(trained['state_dict'])
        weights = self.study.file(f'{run.name}.pth')
        cut = prune(model, structure)
        torch.save({'state_dict': cut.state_dict()}, weights)
        return weights

    def _start_finetuning(self, cfg: Config, run: Run, weights: str) -> None:
        """Let the training of a structure go on from weights, in place.

        What a search has seen, the others have in their finetuning.
        """
        settings = run.settings
        method = settings['method']
        cfg.model.init_cfg = dict(type='Pretrained', checkpoint=weights)
        scale_lr(cfg, settings['pretrained_lr'])
        portion = settings['finetune']
        if searches(method) or method == 'depth-uniform':
            portion -= settings['search_images']
        shorten(cfg, portion * images_of(self.retrain or self.cfg))

    def _searched(
        self, cfg: Config, run: Run, needs: Mapping[str, Record]
    ) -> Any:
        method = run.settings['method']
        pretrained = method.endswith(compare.PRETRAINED)
        if pretrained:
            method = method[: -len(compare.PRETRAINED)]
        if pretrained or 'finetune' in run.settings:
            _start_from(cfg, needs['supernet']['result']['weights'])
            scale_lr(cfg, run.settings['pretrained_lr'])
        portion = run.settings.get('search_images')
        if portion is not None:
            shorten(cfg, portion * images_of(self.retrain or self.cfg))
        if method in MASKS:
            cfg.model.setdefault('mutator', {})['method'] = method
        runner = self._trained(cfg, run)
        subnet = osp.join(runner.work_dir, 'subnet', 'subnet.yaml')
        return load_structure(subnet), seen(runner)

    def _tried(
        self, cfg: Config, run: Run, needs: Mapping[str, Record]
    ) -> Any:
        """The best of many, as the loop of the method tries them."""
        _start_from(cfg, needs['supernet']['result']['weights'])
        number = run.settings['tried']
        loop: Dict[str, Any] = dict(seed=run.settings['seed'])
        if run.settings['method'] == 'ea':
            population = max(2, min(50, number // 4))
            loop['population'] = population
            loop['generations'] = max(1, number // population)
            loop['parents'] = max(1, population // 5)
            cfg.train_cfg = {'type': 'mmrazor.DMSEvolutionLoop', **loop}
        else:
            kind = 'mmrazor.DMSRandomSearchLoop'
            cfg.train_cfg = {'type': kind, 'number': number, **loop}
        cfg.param_scheduler = None
        runner = self._trained(cfg, run)
        path = osp.join(runner.work_dir, CANDIDATES)
        with open(path, encoding='utf-8') as file:
            rows = [json.loads(line)['result'] for line in list(file)[1:]]
        images = sum(row['forward_images'] for row in rows)
        subnet = osp.join(runner.work_dir, 'subnet', 'subnet.yaml')
        return load_structure(subnet), int(images)

    def _constructed(
        self, cfg: Config, run: Run, needs: Mapping[str, Record]
    ) -> Any:
        method = run.settings['method']
        hook = find_resource_hook(cfg)
        judged = method in compare.TRAINED
        if judged:
            _start_from(cfg, needs['supernet']['result']['weights'])
        algorithm = build_algorithm(cfg)
        losses: List[Callable[[], Tensor]] = []
        if judged:
            algorithm.init_weights()
            if method in compare.BY_LOSSES:
                losses = list(task_losses(cfg, algorithm))
        found: Optional[Structure] = None
        if method == 'depth-uniform':
            found = load_structure(needs['found']['result']['structure'])
        request = Request(
            hook.resolve(algorithm),
            hook.divisor,
            run.settings['seed'],
            losses,
            found,
        )
        structure = STRUCTURES[method](algorithm.mutator, request)
        images = len(losses) * (cfg.train_dataloader.get('batch_size') or 1)
        return structure, images

    def _trained(self, cfg: Config, run: Run) -> Runner:
        cfg.work_dir = self.study.file(run.name)
        cfg.randomness = dict(seed=run.settings['seed'])
        cfg.experiment_name = run.name
        runner = command_line.build_runner(cfg)
        runner.train()
        return runner


def searches(method: str) -> bool:
    """Whether a method trains a supernet."""
    return method not in (*STRUCTURES, *compare.TRIED)


def _inherits(settings: Dict[str, Any]) -> bool:
    """Whether a method's cost contains that of the run it needs last.

    The whole network that all methods are cut out of is nobody's.
    """
    method = settings['method']
    if method == 'depth-uniform':
        return True
    judged = method in compare.TRAINED or method.endswith(compare.PRETRAINED)
    return judged and 'finetune' not in settings


def _start_from(cfg: Config, weights: str) -> None:
    """Let the architecture of a search start from weights, in place."""
    architecture = dict(cfg.model.architecture)
    architecture['init_cfg'] = dict(type='Pretrained', checkpoint=weights)
    cfg.model.architecture = architecture


def scale_lr(cfg: Config, factor: float) -> None:
    """Multiply the learning rate of the weights, in place.

    Args:
        cfg (Config): Of a search.
        factor (float): By what.

    Raises:
        DMSError: If the config names no rate.
    """
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    if not isinstance(optimizer.get('lr'), (int, float)):
        raise DMSError(
            '`optim_wrapper.optimizer.lr` is no number: a search from a '
            'trained network multiplies it by --pretrained-lr. Name it.'
        )
    optimizer['lr'] *= factor


def plain_config(cfg: Config, model: Dict[str, Any]) -> Config:
    """A search's config, training a plain model in the same way.

    Args:
        cfg (Config): Of a search.
        model (dict): The plain model.
    """
    plain = deepcopy(cfg)
    plain.pop('model')
    plain.model = model
    plain.custom_hooks = [
        hook
        for hook in plain.get('custom_hooks') or []
        if not has_type(hook, 'ResourceHook')
    ]
    wrapper = plain.optim_wrapper
    if type_name(wrapper, 'constructor') == CONSTRUCTOR:
        options = dict(wrapper.get('paramwise_cfg') or {})
        options.pop('structure', None)
        wrapper.constructor = options.pop(
            'constructor', 'DefaultOptimWrapperConstructor'
        )
        wrapper.paramwise_cfg = options or None
    return plain


def task_losses(
    cfg: Config, algorithm: DMSAlgorithm
) -> Iterator[Callable[[], Tensor]]:
    """Losses of the supernet on some batches of the training data."""
    architecture = algorithm.architecture.eval()
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)

    def loss(batch: Any) -> Callable[[], Tensor]:
        def call() -> Tensor:
            data = architecture.data_preprocessor(batch, True)
            losses = architecture(**data, mode='loss')
            return architecture.parse_losses(losses)[0]

        return call

    for index, batch in enumerate(loader):
        if index == TAYLOR_BATCHES:
            return
        yield loss(batch)


def seen(runner: Runner) -> int:
    """Images of a training."""
    batch = runner.cfg.train_dataloader.get('batch_size') or 1
    return int(runner.iter) * batch * runner.world_size
