"""Randomness that a resumed training continues."""

import random
from typing import Any, Dict, Optional

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner

from dms_mmrazor.registry import HOOKS


@FUNCTIONS.register_module()
def keep_worker_seed(worker_id: int) -> None:
    """As ``worker_init_fn``: leave a data worker the seed of its loader.

    torch draws it from the main process whenever it starts workers;
    mmengine would give them the same seed in every epoch.
    """


@HOOKS.register_module()
class RandomStreamHook(Hook):
    """Make all randomness a function of the seed and of the progress.

    mmengine's checkpoints have no state of random generators. With this
    hook a resumed training draws the numbers that the undisturbed one
    would: the data of an epoch from (seed, epoch, rank), the model in an
    iteration from (seed, iteration, rank). Both have streams of their own,
    so that neither validations nor skipped data shift them.

    Data workers have to start anew in each epoch and to keep the seed that
    they get then: ``persistent_workers=False, worker_init_fn=
    dict(type='keep_worker_seed')`` for epoch-based training. Iteration-based
    training needs neither; mmengine reads the skipped data again.
    """

    # Right around the step of the model.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._data_stream: Any = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin the data stream of an epoch."""
        _seed_all('data', runner.seed, runner.epoch)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Begin the model's stream of an iteration."""
        self._data_stream = _state()
        _seed_all('model', runner.seed, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Optional[Dict[str, Any]] = None,
    ) -> None:
        """Continue the data stream."""
        _restore(self._data_stream)

    def before_val(self, runner: Runner) -> None:
        """Set the data stream aside."""
        self._data_stream = _state()

    def after_val(self, runner: Runner) -> None:
        """Continue the data stream."""
        _restore(self._data_stream)


def _seed_all(stream: str, seed: int, number: int) -> None:
    key = f'{stream}/{seed}/{number}/{dist.get_rank()}'
    value = random.Random(key).getrandbits(32)
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def _state() -> Any:
    """State of the generators that data pipelines use."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _restore(state: Any) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
