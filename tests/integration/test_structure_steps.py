"""Pruning ratios of a real search move by the structure's rule alone."""

import pytest
import torch
from mmengine.hooks import Hook

LR = 3e-2

OPTIMIZERS = [
    dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    dict(type='RMSprop', lr=1e-3, momentum=0.9, weight_decay=1e-4),
    dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True),
]


class Steps(Hook):
    """Records ratios before a step, its gradients, and ratios after it."""

    priority = 'LOWEST'

    def __init__(self):
        self.steps = []

    def before_train(self, runner):
        self.search = runner.model
        step = self.search.structure.step
        move = step.move_

        def record(ratio, task, constraint, lower, upper):
            before = ratio.detach().clone()
            move(ratio, task, constraint, lower, upper)
            above = (constraint.excess > 0)[:, None]
            pull = (above * constraint.grad).sum(0).float()
            after = ratio.detach().clone()
            self.steps.append((before, task + pull, lower, upper, after))

        step.move_ = record


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=lambda cfg: cfg['type'])
def test_a_search_moves_ratios_plainly(optimizer, make_runner):
    """By lr · gradient within limits, whatever the weights' optimizer."""
    wrapper = dict(clip_grad=dict(max_norm=1e-3))
    steps = Steps()
    runner = make_runner(epochs=2, optim_wrapper=wrapper)
    # Also for who has no constructor: then the optimizer sees all.
    runner.optim_wrapper.pop('constructor', None)
    runner.optim_wrapper['optimizer'] = optimizer
    search = runner.model
    plain = type(search.structure)(search.mutator, dict(rule='plain', lr=LR))
    search.structure.step = plain.step
    runner.register_hook(steps)
    runner.train()
    assert len(steps.steps) == runner.iter
    for before, grad, lower, upper, after in steps.steps:
        limited = torch.min(torch.max(before - LR * grad, lower), upper)
        torch.testing.assert_close(after, limited, rtol=0, atol=1e-6)
    for (*_, after), (before, *_) in zip(steps.steps, steps.steps[1:]):
        # Between two steps only the holding of the depth moves a ratio.
        held = search.mutator.topk.held > 0
        assert torch.equal(after[~held], before[~held])
    moved = [not torch.equal(step[0], step[-1]) for step in steps.steps]
    assert sum(moved) > 3
