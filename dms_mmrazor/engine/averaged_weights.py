"""Averages of a search's weights (``EMAHook``): weights, not structure."""

from contextlib import ExitStack, contextmanager
from typing import Iterator

from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from dms_mmrazor.models.algorithms import DMSAlgorithm


def share_structure(runner: Runner, algorithm: DMSAlgorithm) -> None:
    """Let the averaged copy of a search use the search's own structure.

    Pruning ratios, importances and everything else of the mutator then are
    the same tensors in both: averaging or exchanging them changes nothing,
    and what is evaluated is the present structure.
    """
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            copy = hook.ema_model.module
            copy.mutator = algorithm.mutator
            copy.structure = algorithm.structure


@contextmanager
def validated_weights(runner: Runner) -> Iterator[None]:
    """Give the model the weights that a validation uses, for a while.

    With an ``EMAHook`` these are the averaged ones.
    """
    with ExitStack() as stack:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_val_epoch(runner)
                stack.callback(hook.after_val_epoch, runner)
        yield
