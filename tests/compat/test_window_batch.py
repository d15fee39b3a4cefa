import pytest
import torch
from torch import nn

from dms_mmrazor.compat.window_batch import any_number_of_windows


class Windows(nn.Module):
    """Takes an image apart and puts it together as mmpretrain does."""

    def forward(self, image):
        from mmpretrain.models.utils.attention import ShiftWindowMSA

        x = image.permute(0, 2, 3, 1)
        windows = ShiftWindowMSA.window_partition(x, 2)
        return ShiftWindowMSA.window_reverse(windows, 6, 4, 2)


@pytest.fixture
def images():
    import mmpretrain.models.utils.attention  # noqa: F401

    return torch.rand(1, 3, 6, 4), torch.rand(2, 3, 6, 4)


def test_a_trace_takes_any_number_of_images(images):
    one, two = images
    model = Windows()
    stock = torch.jit.trace(model, (one,), check_trace=False)
    assert stock(two).shape != two.permute(0, 2, 3, 1).shape
    with any_number_of_windows():
        traced = torch.jit.trace(model, (one,), check_trace=False)
        assert torch.equal(model(two), two.permute(0, 2, 3, 1))
    for image in images:
        assert torch.equal(traced(image), image.permute(0, 2, 3, 1))


def test_mmpretrain_is_left_as_it_was(images):
    from mmpretrain.models.utils.attention import ShiftWindowMSA

    before = ShiftWindowMSA.__dict__['window_reverse']
    with pytest.raises(ValueError), any_number_of_windows():
        raise ValueError
    assert ShiftWindowMSA.__dict__['window_reverse'] is before
