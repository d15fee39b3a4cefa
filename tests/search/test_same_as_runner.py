"""The same search in a loop of one's own and by mmengine's Runner."""

import copy

import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from dms_mmrazor import Search

ITERATIONS = 8


def test_structure_and_weights_are_the_same_to_the_bit(
    zoo, search_config, tmp_path
):
    architecture = zoo.cifar_resnet(18, 10)
    cfg = search_config(
        architecture,
        tmp_path,
        ITERATIONS,
        hook=dict(target=0.5),
        param_scheduler=[],
    )
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    start = copy.deepcopy(runner.model.architecture.state_dict())
    runner.train()

    DefaultScope.get_instance('plain', scope_name='mmpretrain')
    model = zoo.plain(architecture)
    model.load_state_dict(start)
    model.data_preprocessor = copy.deepcopy(runner.model.data_preprocessor)
    search = Search(model, torch.rand(1, 3, 32, 32), 0.5, ITERATIONS)
    optimizer = torch.optim.SGD(
        search.model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4
    )
    loader = Runner.build_dataloader(cfg['train_dataloader'], seed=0)
    for _, batch in zip(range(ITERATIONS), loader):
        data = model.data_preprocessor(batch, True)
        losses = search.model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()

    theirs = runner.model.mutator.topk.state_dict()
    for key, value in search.mutator.topk.state_dict().items():
        assert torch.equal(value, theirs[key]), key
    assert search.mutator.topk.pruning_ratio.max() > 0.01
    weights = runner.model.architecture.state_dict()
    for key, value in search.model.state_dict().items():
        assert torch.equal(value, weights[key]), key
