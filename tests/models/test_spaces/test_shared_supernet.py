"""The training of a supernet with shared weights, as a model."""

import copy

import pytest
import torch

from dms_mmrazor.errors import DMSError


@pytest.fixture(scope='module')
def supernet(spaces):
    from mmengine.registry import MODELS

    from .conftest import OFA

    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mmrazor.DMSSharedSupernet',
            architecture=copy.deepcopy(OFA),
            mutator=spaces.mutator_cfg('ofa'),
            logits='head.layers.1.fc',
            data_preprocessor=dict(
                type='mmpretrain.ClsDataPreprocessor',
                num_classes=5,
                mean=[128.0] * 3,
                std=[64.0] * 3,
            ),
        )
    )


@pytest.fixture
def data(spaces):
    from mmpretrain.structures import DataSample

    torch.manual_seed(1)
    size = spaces.size
    return dict(
        inputs=[torch.randint(256, (3, size, size)) for _ in range(4)],
        data_samples=[DataSample().set_gt_label(n) for n in range(4)],
    )


def test_steps_train_all_subnets(supernet, data):
    from mmengine.optim import OptimWrapper

    supernet.train()
    parameters = supernet.architecture.parameters()
    wrapper = OptimWrapper(torch.optim.SGD(parameters, 0.1))
    before = copy.deepcopy(supernet.architecture.state_dict())
    logs = supernet.train_step(data, wrapper)
    assert [key for key in logs if key != 'loss'] == [
        *('loss_0_max', 'loss_1_min', 'loss_2_random', 'loss_3_random')
    ]
    assert all(torch.isfinite(value) for value in logs.values())
    assert float(logs['loss_1_min']) > 0
    moved = [
        name
        for name, value in supernet.architecture.named_parameters()
        if not torch.equal(value, before[name])
    ]
    assert len(moved) == len(list(supernet.architecture.parameters()))
    assert int(supernet.steps) == 1 and 'steps' in supernet.state_dict()
    wrapper = OptimWrapper(
        torch.optim.SGD(supernet.architecture.parameters(), 0.1),
        accumulative_counts=2,
    )
    with pytest.raises(DMSError, match='accumulative_counts'):
        supernet.train_step(data, wrapper)


def test_validation_sees_the_largest_subnet(supernet, data, spaces):
    from dms_mmrazor.supernet.plain import plain_copy

    supernet.eval()
    image = torch.rand(2, 3, spaces.size, spaces.size)
    found = supernet(image)
    wanted = plain_copy(supernet.architecture).eval()(image)
    assert torch.allclose(found, wanted, atol=1e-6)
    supernet.train()
    with pytest.raises(DMSError, match='one process'):
        supernet(image, data['data_samples'], mode='loss')


def test_norms_are_the_mean_of_the_batches():
    from dms_mmrazor.search.recalibration import recalibrate_norms

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4, momentum=0.3)
    ).train()
    old = model[1].running_mean
    images = [torch.rand(5, 3, 4, 4) for _ in range(3)]
    assert recalibrate_norms(model, images, model) == 1
    features = [model[0](image).transpose(0, 1).flatten(1) for image in images]
    mean = sum(f.mean(1) for f in features) / 3
    var = sum(f.var(1) for f in features) / 3
    assert torch.allclose(model[1].running_mean, mean, atol=1e-6)
    assert torch.allclose(model[1].running_var, var, atol=1e-6)
    assert model[1].momentum == 0.3 and model.training
    assert not old.any()  # the tensor of before is left alone
