"""Pruning ratios of a real search move by lr · gradient, then are limited."""

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
    """Records ratios before a step, their gradient, and ratios after it."""

    priority = 'LOWEST'

    def __init__(self):
        self.steps = []
        self.grad = None

    def before_train(self, runner):
        (self.ratios,) = runner.model.structural_parameters()
        self.ratios.register_hook(self.keep_first)

    def keep_first(self, grad):
        # The check of step sizes asks for gradients after the step.
        self.grad = grad if self.grad is None else self.grad

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before, self.grad = self.ratios.detach().clone(), None

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        after = self.ratios.detach().clone()
        self.steps.append((self.before, self.grad.clone(), after))


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=lambda cfg: cfg['type'])
def test_a_search_moves_ratios_plainly(optimizer, make_runner):
    wrapper = dict(clip_grad=dict(max_norm=1e-3))
    steps = Steps()
    # Half of it in the decay: the depth is held later.
    runner = make_runner(epochs=2, optim_wrapper=wrapper)
    runner.optim_wrapper['optimizer'] = optimizer
    runner.register_hook(steps)
    runner.train()
    layout = runner.model.mutator.topk.layout
    for before, grad, after in steps.steps[:6]:
        limited = torch.clamp(before - LR * grad, layout.lower, layout.upper)
        torch.testing.assert_close(after, limited, rtol=0, atol=1e-7)
    moved = [
        not torch.equal(before, after) for before, _, after in steps.steps
    ]
    assert sum(moved) > 3
    (ratios,) = runner.model.structural_parameters()
    assert ratios not in runner.optim_wrapper.optimizer.state
