from importlib import import_module

import pytest
import torch
from torch import nn

import dms_mmrazor.plugin  # noqa: F401  (mends an import of mmpretrain)
from dms_mmrazor.compat.window_batch import any_number_of_windows

IMAGES = torch.rand(1, 3, 6, 4), torch.rand(2, 3, 6, 4)
MODULES = ('mmpretrain.models.utils.attention', 'mmdet.models.backbones.swin')


class Windows(nn.Module):
    """Takes an image apart and puts it together as one of the libraries."""

    def __init__(self, kind):
        super().__init__()
        self.parts, self.sizes = kind, (2,)
        if not isinstance(kind.__dict__['window_reverse'], staticmethod):
            self.parts, self.sizes = kind(4, 2, window_size=2), ()

    def forward(self, image):
        x = image.permute(0, 2, 3, 1)
        windows = self.parts.window_partition(x, *self.sizes)
        return self.parts.window_reverse(windows, 6, 4, *self.sizes)


@pytest.fixture(params=MODULES)
def kind(request):
    return import_module(request.param).ShiftWindowMSA


def test_a_trace_takes_any_number_of_images(kind):
    one, two = IMAGES
    model = Windows(kind)
    stock = torch.jit.trace(model, (one,), check_trace=False)
    assert stock(two).shape != two.permute(0, 2, 3, 1).shape
    with any_number_of_windows():
        traced = torch.jit.trace(model, (one,), check_trace=False)
        assert torch.equal(model(two), two.permute(0, 2, 3, 1))
    for image in IMAGES:
        assert torch.equal(traced(image), image.permute(0, 2, 3, 1))


def test_a_library_is_left_as_it_was(kind):
    before = kind.__dict__['window_reverse']
    with pytest.raises(ValueError), any_number_of_windows():
        raise ValueError
    assert kind.__dict__['window_reverse'] is before
