"""The same structure on every rank, at the price of one collective."""

import collections
import os
import socket
import time

import pytest
import torch

STEPS = 50


def _algorithm(zoo, **kwargs):
    algorithm = zoo.algorithm(zoo.cifar_resnet(18, 10), **kwargs)
    torch.manual_seed(0)
    algorithm.init_weights()
    algorithm.set_constraints(dict(macs=1.0))
    algorithm.structure.step.set_length(STEPS)
    algorithm.set_targets(
        dict(macs=0.3 * algorithm.mutator.table.full['macs'])
    )
    return algorithm


def _wrap(model, **kwargs):
    from mmengine.model import MMDistributedDataParallel

    return MMDistributedDataParallel(model, device_ids=None, **kwargs)


def _optimizer(algorithm):
    return torch.optim.SGD(algorithm.architecture.parameters(), lr=0.01)


def _step(model, algorithm, optimizer, data):
    losses = model(**data, mode='loss')
    loss = sum(v for name, v in losses.items() if 'loss' in name)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    algorithm.finish_step()


def _structure(algorithm):
    topk = algorithm.mutator.topk
    state = (topk.pruning_ratio, topk.importance, algorithm.mutator.masks.mask)
    return [tensor.detach().clone() for tensor in state]


def _trajectory(rank, world_size, zoo, batch, kwargs, step):
    algorithm = _algorithm(zoo, structure_step=step)
    model = _wrap(algorithm, **kwargs).train()
    optimizer, found = _optimizer(algorithm), []
    for step in range(STEPS):
        data = batch(2, seed=world_size * step + rank)
        _step(model, algorithm, optimizer, data)
        if step >= STEPS // 2:
            _hold(algorithm, (step - STEPS // 2 + 1) / STEPS * 4)
        found.append(_structure(algorithm))
    assert algorithm.mutator.topk.pruning_ratio.max() > 0.05
    return found


def _hold(algorithm, hardness):
    """As :class:`ResourceHook` holds the depth while refining."""
    mutator = algorithm.mutator
    if not mutator.topk.held.any():
        algorithm.structure.agree()
        mutator.masks.hold_depth()
    mutator.topk.harden_(min(hardness, 1.0))


@pytest.mark.parametrize(
    'world_size, broadcast, signal',
    [(2, False, 'gradient'), (2, True, 'removal'), (4, False, 'removal')],
)
def test_ranks_agree_to_the_bit(
    world_size, broadcast, signal, processes, zoo, batch
):
    step = dict(signal=signal)
    # traced once, before the fork
    zoo.algorithm(zoo.cifar_resnet(18, 10), structure_step=step)
    kwargs = dict(broadcast_buffers=broadcast)
    ranks = processes(_trajectory, world_size, zoo, batch, kwargs, step)
    for other in ranks[1:]:
        for step, (one, two) in enumerate(zip(ranks[0], other)):
            for a, b in zip(one, two):
                assert torch.equal(a, b), step


def _accumulated(rank, world_size, zoo, batch):
    """The gradient of the masks survives the broadcast of buffers."""
    algorithm = _algorithm(zoo)
    model = _wrap(algorithm, broadcast_buffers=True).train()
    for part in range(2):
        losses = model(**batch(2, seed=2 * part + rank), mode='loss')
        losses['loss'].backward()
    return algorithm.mutator.masks.mask_grad.clone()


def test_broadcast_spares_the_gradient_of_the_masks(processes, zoo, batch):
    zoo.algorithm(zoo.cifar_resnet(18, 10))
    one, two = processes(_accumulated, 2, zoo, batch)
    assert one.abs().sum() > 0
    assert not torch.equal(one, two)


class _Coupled(torch.nn.Module):
    """An embedding, and a hidden width that is a portion of it."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Linear(5, 24)
        self.hidden = torch.nn.Linear(24, 96)
        self.back = torch.nn.Linear(96, 24)
        self.head = torch.nn.Linear(24, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.back(self.hidden(x).relu()))


def _coupled(rank, world_size):
    """A search whose resource gradients differ by rank in the last bits.

    So do those of a GPU, whose atomic additions come in any order.
    """
    from torch.nn.parallel import DistributedDataParallel

    from dms_mmrazor import Search

    torch.manual_seed(0)
    units = dict(
        stem=dict(init_args=dict(step=4, min_ratio=0.5)),
        hidden=dict(init_args=dict(step=12, min_ratio=0.5, follows='stem')),
    )
    search = Search(
        _Coupled(),
        torch.rand(4, 5),
        0.5,
        total_steps=20,
        mutator=dict(
            channel_unit_cfg=dict(type='DMSChannelUnit', units=units),
            importance=dict(metric='index'),
        ),
    )
    exact = search.structure._constraint

    def rounded():
        constraint = exact()
        return constraint._replace(grad=constraint.grad * (1 + 1e-6 * rank))

    search.structure._constraint = rounded
    model, found = DistributedDataParallel(search.model), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(20):
        torch.manual_seed(world_size * step + rank)
        model(torch.rand(4, 5)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
        found.append(_structure(search))
    subnet = search.export(divisor=1)
    return found, [unit.kept for unit in subnet.structure.units]


def test_ranks_agree_where_one_width_follows_another(processes):
    (one, kept), (two, same) = processes(_coupled, 2)
    for step, (first, second) in enumerate(zip(one, two)):
        for a, b in zip(first, second):
            assert torch.equal(a, b), step
    assert kept == same
    assert len(kept[0]) < 24


def _collectives(rank, world_size, zoo, batch, searched, kwargs):
    if searched:
        algorithm = _algorithm(zoo)
        optimizer = _optimizer(algorithm)
    else:
        algorithm = zoo.plain(zoo.cifar_resnet(18, 10))
        optimizer = torch.optim.SGD(algorithm.parameters(), lr=0.01)
        algorithm.finish_step = lambda: None
    model = _wrap(algorithm, **kwargs).train()
    data = batch(2, seed=rank)
    for _ in range(2):  # the reducer rebuilds its buckets after the first
        _step(model, algorithm, optimizer, data)
    # gloo notes an operation in its own thread, shortly after its end.
    time.sleep(1)
    with torch.profiler.profile() as profile:
        for _ in range(4):
            _step(model, algorithm, optimizer, data)
        time.sleep(1)
    names = [event.name for event in profile.events()]
    return collections.Counter(n for n in names if n.startswith('gloo:'))


@pytest.mark.parametrize('broadcast', [False, True])
def test_one_more_collective_than_plain_ddp(broadcast, processes, zoo, batch):
    zoo.algorithm(zoo.cifar_resnet(18, 10))
    counts = []
    for searched in (False, True):
        kwargs = dict(broadcast_buffers=broadcast)
        args = (zoo, batch, searched, kwargs)
        counts.append(processes(_collectives, 2, *args)[0])
    plain, searched = counts
    assert sum(plain.values()) >= 4
    assert sum(searched.values()) == sum(plain.values()) + 4, counts
    assert searched['gloo:all_reduce'] == plain['gloo:all_reduce'] + 4


def _norm_free(rank, world_size, zoo, batch):
    """16 images in all, with the statistics of BatchNorm fixed."""
    algorithm = _algorithm(zoo)
    model = algorithm if world_size == 1 else _wrap(algorithm)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    optimizer, found = _optimizer(algorithm), []
    for step in range(STEPS):
        data = batch(16, seed=step)
        part = slice(16 // world_size * rank, 16 // world_size * (rank + 1))
        data = {key: value[part] for key, value in data.items()}
        _step(model, algorithm, optimizer, data)
        found.append(_structure(algorithm))
    return found


def test_two_times_8_images_are_16(processes, zoo, batch):
    zoo.algorithm(zoo.cifar_resnet(18, 10))
    (whole,) = processes(_norm_free, 1, zoo, batch)
    halves = processes(_norm_free, 2, zoo, batch)[0]
    for step, (one, two) in enumerate(zip(whole, halves)):
        for a, b in zip(one, two):
            # Rounding may let two channels of equal importance change places.
            close = torch.isclose(a, b, rtol=1e-3, atol=1e-6)
            assert close.float().mean() > 0.97, step


def _free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def test_the_tool(small_search, run_tool, finished, tmp_path):
    """Everything together: hooks that touch buffers, EMA, accumulation."""
    cfg = small_search.config(
        epochs=8,
        train_dataloader=dict(batch_size=4),
        optim_wrapper=dict(
            accumulative_counts=2, clip_grad=dict(max_norm=5.0)
        ),
    )
    cfg['custom_hooks'] += [
        dict(type='SyncBuffersHook'),
        dict(type='EMAHook', momentum=0.1, update_buffers=True),
    ]
    port = _free_port()

    def before(rank):
        def patch():
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE='2',
                MASTER_ADDR='127.0.0.1',
                MASTER_PORT=str(port),
            )
            _record(tmp_path / f'rank_{rank}.pt')

        return patch

    pids = [
        run_tool(
            cfg if rank == 0 else None,
            tmp_path,
            *('--launcher', 'pytorch'),
            before=before(rank),
        )
        for rank in range(2)
    ]
    assert [finished(pid) for pid in pids] == [0, 0], _tail(tmp_path)
    one, two = [torch.load(tmp_path / f'rank_{rank}.pt') for rank in range(2)]
    assert len(one) == len(two) == 48
    for step, (a, b) in enumerate(zip(one, two)):
        assert all(torch.equal(x, y) for x, y in zip(a, b)), step
    assert (tmp_path / 'subnet' / 'subnet.yaml').exists()


def _tail(folder):
    return (folder / 'log.txt').read_text()[-3000:]


def _record(path):
    """Write the structure of every iteration to a file."""
    from dms_mmrazor.engine.hooks import ResourceHook
    from dms_mmrazor.engine.runner_access import get_algorithm

    original, found = ResourceHook.after_train_iter, []

    def after_train_iter(self, runner, *args, **kwargs):
        original(self, runner, *args, **kwargs)
        found.append(_structure(get_algorithm(runner)))
        torch.save(found, path)

    ResourceHook.after_train_iter = after_train_iter
