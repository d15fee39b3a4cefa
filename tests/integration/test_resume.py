"""An interrupted search ends like an undisturbed one, to the bit."""

import os
import signal

import pytest


def _stop_at(iteration):
    """Make the process kill itself before an iteration."""

    def patch():
        from dms_mmrazor.engine.hooks import ResourceHook

        original = ResourceHook.before_train_iter

        def before_train_iter(self, runner, *args, **kwargs):
            if runner.iter == iteration:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, runner, *args, **kwargs)

        ResourceHook.before_train_iter = before_train_iter

    return patch


def _by_iteration(cfg):
    """The same search without epochs."""
    cfg['train_cfg'] = dict(by_epoch=False, max_iters=24, val_interval=9)
    cfg['train_dataloader']['sampler']['type'] = 'InfiniteSampler'
    cfg['log_processor'] = dict(by_epoch=False)
    cfg['default_hooks']['checkpoint'].update(by_epoch=False, interval=6)
    cfg['param_scheduler'] = [
        dict(type='CosineAnnealingLR', by_epoch=False, T_max=24)
    ]
    return cfg


def _check(cfg, iteration, folder, run_tool, finished):
    """Run, kill before an iteration, resume; returns the log."""
    stop = _stop_at(iteration)
    assert finished(run_tool(cfg, folder, before=stop)) == -signal.SIGKILL
    assert finished(run_tool(cfg, folder, '--resume')) == 0
    return (folder / 'log.txt').read_text()


# The depth is held from iteration 12 on.
@pytest.mark.parametrize('iteration', [3, 12, 15])
def test_epochs(
    iteration,
    small_search,
    run_tool,
    finished,
    same_result,
    undisturbed,
    tmp_path,
):
    """In the first epoch, at a boundary, in the refining phase."""
    cfg = small_search.config()
    log = _check(cfg, iteration, tmp_path, run_tool, finished)
    assert ('resumed epoch' in log) == (iteration >= 6)
    same_result(tmp_path, undisturbed)


@pytest.mark.parametrize(
    'by_epoch, workers', [(True, 1), (False, 0), (False, 1)]
)
def test_loops_and_workers(
    by_epoch, workers, small_search, run_tool, finished, same_result, tmp_path
):
    cfg = small_search.config(
        train_dataloader=dict(
            num_workers=workers, persistent_workers=bool(workers)
        )
    )
    # Blocks become whole or none in iterations 8 to 13.
    cfg['custom_hooks'][0]['decay'] = '8 iterations'
    cfg = cfg if by_epoch else _by_iteration(cfg)
    assert finished(run_tool(cfg, tmp_path / 'whole')) == 0
    log = _check(cfg, 15, tmp_path / 'killed', run_tool, finished)
    assert 'iter: 12' in log
    name = 'epoch_2.pth' if by_epoch else 'iter_12.pth'
    assert 0.5 < _held(tmp_path / 'killed' / name).max() < 1
    same_result(tmp_path / 'killed', tmp_path / 'whole')


def test_adamw(small_search, run_tool, finished, same_result, tmp_path):
    """Its weights have a state, and so has what 'removal' measures."""
    cfg = small_search.config()
    cfg['model']['structure_step'] = dict(signal='removal')
    adamw = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
    cfg['optim_wrapper']['optimizer'] = adamw
    assert finished(run_tool(cfg, tmp_path / 'whole')) == 0
    _check(cfg, 15, tmp_path / 'killed', run_tool, finished)
    same_result(tmp_path / 'killed', tmp_path / 'whole')


def _held(path):
    """How far the depth is held in a checkpoint."""
    import torch

    state = torch.load(path, map_location='cpu')['state_dict']
    return state['mutator.masks.topk.held']


def test_held_depth_stays_held(undisturbed):
    """The refining phase is part of what is compared."""
    path = (undisturbed / 'last_checkpoint').read_text()
    assert _held(path).max() == 1
