import torch
from torch import nn

from dms_mmrazor.layers import apply_sync_norms, revert_sync_norms


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        norm = nn.SyncBatchNorm(4, eps=0.1, momentum=0.2)
        self.one = nn.Sequential(nn.Conv2d(3, 4, 1), norm)
        self.two = nn.Sequential(nn.Conv2d(4, 4, 1), norm)
        self.last = nn.BatchNorm2d(4)


def test_norms_become_ordinary_and_sync_again():
    model = Model().eval()
    before = list(model.named_modules())
    norms = revert_sync_norms(model)
    assert list(norms) == ['one.1', 'two.1']
    assert type(model.one[1]) is nn.BatchNorm2d
    assert model.one[1] is model.two[1]
    assert (model.one[1].eps, model.one[1].momentum) == (0.1, 0.2)
    assert not model.one[1].training
    apply_sync_norms(model, norms)
    assert list(model.named_modules()) == before


def test_they_share_what_they_learn():
    model = Model()
    norms = revert_sync_norms(model)
    model.one(torch.rand(2, 3, 4, 4))
    model.one[1].running_var = torch.full((4,), 3.0)
    model.one[1].weight = nn.Parameter(torch.full((4,), 2.0))
    apply_sync_norms(model, norms)
    norm = model.one[1]
    assert isinstance(norm, nn.SyncBatchNorm)
    assert (norm.weight == 2).all() and (norm.running_var == 3).all()
    assert norm.running_mean.abs().max() > 0 and norm.num_batches_tracked == 1


def test_models_without_them_stay_as_they_are():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = list(model.modules())
    apply_sync_norms(model, revert_sync_norms(model))
    assert list(model.modules()) == before
