"""Mixed precision and accumulated gradients."""

import pytest
import torch
from mmengine.hooks import Hook

MODERN = int(torch.__version__.split('.')[0]) >= 2


@pytest.fixture
def amp_on_cpu(monkeypatch):
    """mmengine refuses to build its wrapper without a GPU."""
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    monkeypatch.setattr(
        amp_optimizer_wrapper, 'is_cuda_available', lambda: True
    )


class Watch(Hook):
    """Records the structure; prepares the runner and its iterations."""

    priority = 'LOWEST'

    def __init__(self, scaler=None, before=None):
        self.scaler = scaler
        self.before = before
        self.found = []

    def before_train(self, runner):
        if self.scaler is not None:
            runner.optim_wrapper.loss_scaler = self.scaler

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.before is not None:
            self.before(runner)

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        topk = runner.model.mutator.topk
        state = (topk.pruning_ratio, topk.importance, topk.num_updates)
        self.found.append([tensor.detach().clone() for tensor in state])


def _amp(**kwargs):
    return dict(type='AmpOptimWrapper', **kwargs)


def _run(make_runner, watch, **changes):
    runner = make_runner(epochs=2, **changes)
    runner.register_hook(watch)
    runner.train()
    return watch.found


@pytest.mark.skipif(not MODERN, reason='no bfloat16 BatchNorm on the CPU')
def test_bf16(make_runner, amp_on_cpu):
    full = _run(make_runner, Watch())
    half = _run(make_runner, Watch(), optim_wrapper=_amp(dtype='bfloat16'))
    assert half[-1][2] == 12
    for ratio, importance, _ in half:
        assert ratio.isfinite().all() and importance.isfinite().all()
    assert half[-1][1].dtype == torch.float32
    difference = (half[-1][0] - full[-1][0]).abs().max()
    assert 0 < difference < 0.05


def _scaler(scale):
    return torch.amp.GradScaler('cpu', init_scale=scale, growth_interval=10**6)


@pytest.mark.skipif(not MODERN, reason='no scaler for the CPU')
def test_importances_do_not_depend_on_the_loss_scale(make_runner, amp_on_cpu):
    found = [
        _run(
            make_runner,
            Watch(_scaler(scale)),
            optim_wrapper=_amp(dtype='bfloat16'),
        )
        for scale in (1.0, 2.0**12)
    ]
    for step, (one, two) in enumerate(zip(*found)):
        for a, b in zip(one, two):  # powers of two: nothing is rounded
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-9)
        assert two[2] == step + 1


@pytest.mark.skipif(not MODERN, reason='no scaler for the CPU')
@pytest.mark.parametrize('where', ['everywhere', 'one weight'])
def test_overflow_leaves_structure_and_importance(
    where, make_runner, amp_on_cpu
):
    """The scaler skips step 5: what was found before it stays."""

    def before(runner):
        fc = runner.model.architecture.head.fc
        part = fc.weight if where == 'one weight' else None
        if runner.iter == 5 and part is not None:
            handle = part.register_hook(lambda grad: grad * float('inf'))
            before.handle = handle
        elif runner.iter == 5:
            before.handle = fc.register_forward_hook(
                lambda *args: args[-1] * 1e38 * 1e38
            )
        elif runner.iter == 6:
            before.handle.remove()

    watch = Watch(_scaler(1024.0), before)
    found = _run(make_runner, watch, optim_wrapper=_amp(dtype='bfloat16'))
    assert watch.scaler.get_scale() == 512
    for a, b in zip(found[4], found[5]):
        assert torch.equal(a, b)
    assert not torch.equal(found[5][1], found[6][1])
    assert found[-1][2] == 11


def test_accumulation_updates_importances_once_per_step(make_runner):
    found = _run(
        make_runner, Watch(), optim_wrapper=dict(accumulative_counts=3)
    )
    assert [int(f[2]) for f in found] == [i // 3 for i in range(1, 13)]
    for index in range(1, 12):
        equal = [
            torch.equal(a, b) for a, b in zip(*found[index - 1 : index + 1])
        ]
        assert all(equal) == ((index + 1) % 3 != 0)
