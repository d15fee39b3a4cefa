"""What a student's outputs cost against a teacher's."""

from typing import Optional, Tuple

from torch import Tensor
from torch.nn import functional as F


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    mask: Optional[Tensor] = None,
) -> Tensor:
    """KL divergence of softened distributions over the last dimension.

    Args:
        student (Tensor): Logits [..., C].
        teacher (Tensor): Logits [..., C]; they get no gradient.
        temperature (float): T, by which both are divided; the loss is
            multiplied by T², so that its gradient keeps its size. Defaults
            to 1.
        mask (Tensor, optional): bool [...]: positions that count. Defaults
            to None, all.

    Returns:
        Tensor: 0-dim, mean over positions, in single precision.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    each = F.kl_div(
        log_student, log_teacher, reduction='none', log_target=True
    ).sum(-1)
    if mask is not None:
        mask = mask.to(each.dtype)
        return temperature**2 * (each * mask).sum() / mask.sum().clamp(min=1)
    return temperature**2 * each.mean()


def squared_difference(a: Tensor, b: Tensor, mask: Optional[Tensor]) -> Tensor:
    """Mean over the positions that count, and over channels."""
    a, b = a.float(), b.float()
    if mask is not None and a.shape[:-1] == mask.shape:
        # Weighted, as choosing positions would wait for a GPU.
        each = (a - b).square().mean(-1) * mask
        return each.sum() / mask.sum().clamp(min=1)
    return F.mse_loss(a, b)


def classes_last(a: Tensor, b: Tensor) -> Tuple[Tensor, Tensor]:
    """Maps [B, C, H, W] of a detector as [B, H, W, C]."""
    if a.dim() == 4:
        return a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return a, b
