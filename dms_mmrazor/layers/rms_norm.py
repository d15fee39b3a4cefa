"""Norms by the root of the mean square, with masked features."""

from functools import lru_cache
from typing import ClassVar, Type

import torch
from torch import Tensor, nn

from dms_mmrazor.layers.dms_op import DMSOp


def masked_rms_norm_of(x: Tensor, mask: Tensor, eps: float) -> Tensor:
    """x divided by the root of its mean square over the kept features.

    ``Σ m x² / Σ m``: for a 0/1 mask what the norm of an exported model
    computes. Features with mask 0 come out scaled, too; the layers that
    read them multiply them by the mask.

    Args:
        x (Tensor): [..., N].
        mask (Tensor): [N].
        eps (float): Added to the mean square.

    Returns:
        Tensor: [..., N] in single precision, or double that of ``x``.
    """
    # Squares overflow half precision.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    mask = mask.to(x.dtype)
    square = (x * x) @ mask / mask.sum()
    return x * torch.rsqrt(square + eps).unsqueeze(-1)


class DMSRMSNorm(DMSOp):
    """What all masked norms of this kind have; see :func:`masked_rms_norm`.

    Attributes:
        variance_epsilon (float): Added to the mean square.
    """

    one_sided: ClassVar[bool] = True

    weight: Tensor
    variance_epsilon: float

    @property
    def num_features(self) -> int:
        """Number of features."""
        return self.weight.shape[0]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalize [..., N] with the mask of this step."""
        mask = self.masks().inputs
        if mask is None:
            return super().forward(hidden_states)
        out = masked_rms_norm_of(hidden_states, mask, self.variance_epsilon)
        return self.weight * out.to(hidden_states.dtype)


@lru_cache(maxsize=None)
def masked_rms_norm(kind: Type[nn.Module]) -> Type[DMSOp]:
    """The masked class of a norm of this kind, made when it is needed.

    Args:
        kind (type): Its class, whose ``forward`` takes hidden states.
    """
    return type(f'DMS{kind.__name__}', (DMSRMSNorm, kind), {})
