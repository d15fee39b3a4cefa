"""Numbers of a search that must not become less precise with its model."""

from typing import Any, Callable

from torch import Tensor, nn

__all__ = ['KeepsPrecision']


class KeepsPrecision(nn.Module):
    """A module whose numbers stay as precise as they are.

    ``model.half()`` or ``model.to(torch.bfloat16)`` convert all modules of a
    model. Ranks, pruning ratios and resources do not fit into half
    precision: other channels would be kept. They move to other devices, and
    to higher precision, with the model.
    """

    def _apply(
        self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any
    ) -> nn.Module:
        def convert(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            if new.element_size() >= tensor.element_size():
                return new
            return tensor.to(new.device)

        return super()._apply(convert, *args, **kwargs)
