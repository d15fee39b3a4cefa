"""Let ONNX files of models with shifted windows take any batch size.

Symptom: an ONNX file of Swin computes something else than the model for
every batch size but that of the export; nothing fails.
Seen with: mmpretrain 1.2.0, mmdet 3.3.0; mmsegmentation has the latter's
code. ``ShiftWindowMSA.window_reverse`` turns the number of images into an
``int``, which a trace keeps as a constant.
Drop when: they leave the number of images to ``view``.
"""

import sys
from contextlib import ExitStack, contextmanager
from typing import Any, Iterator

from torch import Tensor

_MODULES = (
    'mmpretrain.models.utils.attention',
    'mmdet.models.backbones.swin',
    'mmseg.models.backbones.swin',
)


@contextmanager
def any_number_of_windows() -> Iterator[None]:
    """Export inside; does nothing unless such an attention is loaded."""
    with ExitStack() as patches:
        for name in _MODULES:
            if name in sys.modules:
                attention = sys.modules[name].ShiftWindowMSA
                patches.enter_context(_patched(attention))
        yield


@contextmanager
def _patched(attention: type) -> Iterator[None]:
    """One library's; a method of it that knows the size, or a function."""
    before = attention.__dict__['window_reverse']

    def method(self: Any, windows: Tensor, height: int, width: int) -> Tensor:
        return window_reverse(windows, height, width, self.window_size)

    static = isinstance(before, staticmethod)
    attention.window_reverse = (
        staticmethod(window_reverse) if static else method
    )
    try:
        yield
    finally:
        attention.window_reverse = before


def window_reverse(
    windows: Tensor, height: int, width: int, window_size: int
) -> Tensor:
    """Put windows together again.

    Args:
        windows (Tensor): [images * windows, size, size, C].
        height (int): H of the whole feature map.
        width (int): W of the whole feature map.
        window_size (int): Height and width of a window.

    Returns:
        Tensor: [images, H, W, C].
    """
    rows, columns = height // window_size, width // window_size
    channels = windows.shape[-1]
    x = windows.view(-1, rows, columns, window_size, window_size, channels)
    x = x.permute(0, 1, 3, 2, 4, 5).contiguous()
    return x.view(-1, height, width, channels)
