"""EMA, accumulation, clipping, AMP and DDP in one search to its target."""

import os
import socket

import pytest
import torch
import yaml

EPOCHS, STEPS_PER_EPOCH = 24, 6  # of 2 ranks with 4 images each


def _free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def _prepare(rank, port, path):
    """Join the other process; allow AMP on the CPU; watch the search."""

    def before():
        from mmengine.optim.optimizer import amp_optimizer_wrapper

        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE='2',
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
        )
        # mmengine refuses to build its wrapper without a GPU.
        amp_optimizer_wrapper.is_cuda_available = lambda: True
        _record(path)

    return before


def _record(path):
    """Write to a file what every iteration leaves, and what is used."""
    from mmengine.model import is_model_wrapper

    from dms_mmrazor.engine.hooks import ResourceHook
    from dms_mmrazor.engine.runner_access import get_algorithm

    original, found = ResourceHook.after_train_iter, []

    def after_train_iter(self, runner, *args, **kwargs):
        original(self, runner, *args, **kwargs)
        mutator = get_algorithm(runner).mutator
        topk = mutator.topk
        state = (topk.pruning_ratio, topk.importance, mutator.masks.mask)
        ratio = mutator.resource('macs', hard=False)
        found.append(
            dict(
                structure=[tensor.detach().clone() for tensor in state],
                updates=int(topk.num_updates),
                ratio=ratio / mutator.table.full['macs'],
                wrapped=is_model_wrapper(runner.model),
                wrapper=type(runner.optim_wrapper).__name__,
            )
        )
        if runner.iter + 1 == runner.max_iters:
            torch.save(found, path)

    ResourceHook.after_train_iter = after_train_iter


@pytest.mark.skipif(
    torch.__version__ < '2',
    reason='no bfloat16 BatchNorm on the CPU',
)
def test_all_together(small_search, run_tool, finished, tmp_path):
    cfg = small_search.config(
        epochs=EPOCHS,
        train_cfg=dict(val_interval=EPOCHS),
        train_dataloader=dict(batch_size=4),
        optim_wrapper=dict(
            type='AmpOptimWrapper',
            dtype='bfloat16',
            accumulative_counts=2,
            clip_grad=dict(max_norm=1.0),
        ),
        default_hooks=dict(checkpoint=dict(interval=EPOCHS)),
    )
    cfg['custom_hooks'] += [
        dict(type='EMAHook', momentum=0.1, update_buffers=True)
    ]
    port = _free_port()
    records = [tmp_path / f'rank_{rank}.pt' for rank in range(2)]
    pids = [
        run_tool(
            cfg if rank == 0 else None,
            tmp_path,
            *('--launcher', 'pytorch'),
            before=_prepare(rank, port, path),
        )
        for rank, path in enumerate(records)
    ]
    log = tmp_path / 'log.txt'
    assert [finished(p) for p in pids] == [0, 0], log.read_text()[-3000:]
    assert 'grad_norm: ' in log.read_text()  # it is clipped
    one, two = [torch.load(path) for path in records]
    assert len(one) == len(two) == EPOCHS * STEPS_PER_EPOCH
    for step, (a, b) in enumerate(zip(one, two)):
        assert a['wrapped'] and a['wrapper'] == 'AmpOptimWrapper'
        assert a['updates'] == (step + 1) // 2
        for x, y in zip(a['structure'], b['structure']):
            assert x.isfinite().all() and torch.equal(x, y), step
    assert one[-1]['ratio'] == pytest.approx(0.5, abs=0.02)
    _check_export(tmp_path)


def _check_export(folder):
    """The subnet is at the target and has the averaged weights."""
    text = (folder / 'subnet' / 'subnet.yaml').read_text()
    macs = yaml.safe_load(text)['resources']['macs']
    assert macs['subnet'] / macs['supernet'] == pytest.approx(0.5, abs=0.05)
    name = 'backbone.conv1.weight'
    subnet = torch.load(folder / 'subnet' / 'subnet.pth')['state_dict'][name]
    checkpoint = torch.load(folder / f'epoch_{EPOCHS}.pth', weights_only=False)
    name = f'architecture.{name}'
    # A checkpoint has the averaged weights where others have the trained.
    averaged = checkpoint['state_dict'][name]
    trained = checkpoint['ema_state_dict'][f'module.{name}']
    rows = [
        [any(torch.equal(row, other) for other in whole) for row in subnet]
        for whole in (averaged, trained)
    ]
    assert all(rows[0]) and not any(rows[1])
