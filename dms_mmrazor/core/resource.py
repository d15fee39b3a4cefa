"""The resource model: what a network costs as a function of what it keeps.

Appendix A.1.2, Eq. 8: a linear layer costs (1 - a_in) N_in (1 - a_out) N_out
MACs (times its positions) and as many parameters; a convolution has the
kernel size in its coefficient; a block's layers are multiplied by its depth
mask. All of them are products of a constant and affine functions of kept
numbers, so a network is a table, not code. A latency (Eq. 9) with a
polynomial f is a sum of such products, too.
"""

import math
from typing import (
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from torch import Tensor

from .precision import KeepsPrecision

__all__ = ['Dim', 'Following', 'ResourceModel', 'Term', 'resource_loss']

ROUND_UP = 1e-6
"""Halves of elements are kept, whatever the last bits say."""


class Dim(NamedTuple):
    """One dimension of a layer: ``constant + sum_j mult_j * kept[unit_j]``.

    Attributes:
        constant (float): Part that no unit prunes. Defaults to 0.0.
        units (tuple[tuple[int, float], ...]): Pairs of unit and multiplier:
            several for a concatenation, a multiplier for channels that are
            repeated. Defaults to ().
        block (int, optional): The removable block with which the whole
            dimension goes, though its layer is not in that block: a slice
            of a concatenation. Defaults to None.
    """

    constant: float = 0.0
    units: Tuple[Tuple[int, float], ...] = ()
    block: Optional[int] = None


class Term(NamedTuple):
    """One summand of the resource: a coefficient times its dimensions.

    Attributes:
        layer (str): Name of the layer; may occur in several terms.
        coefficient (float): For MACs of a convolution k_h k_w H W.
        dims (tuple[Dim, ...]): Dimensions to multiply; empty for a
            constant cost.
        block (int, optional): Index of the removable residual block that
            the layer is in. Defaults to None.
    """

    layer: str
    coefficient: float
    dims: Tuple[Dim, ...]
    block: Optional[int] = None


class Following(NamedTuple):
    """A unit whose width is a portion of what another one keeps.

    Attributes:
        leader (int): Index of the other unit.
        leader_size (int): Channels of the other unit.
        size (int): Channels of this unit.
        step (int): Channels of this unit that share a mask.
    """

    leader: int
    leader_size: int
    size: int
    step: int


class ResourceModel(KeepsPrecision):
    """Evaluates all terms in one vectorized expression in float64.

    Neither direction synchronizes with the host.

    Args:
        terms (Sequence[Term]): The table, T >= 1 terms. Negative
            coefficients are not forbidden, but
            :func:`~dms_mmrazor.core.fit_to_targets` needs a resource that
            never falls when more is kept.
        num_units (int): Number U of units.
        num_blocks (int): Number B of removable blocks.

    Raises:
        ValueError: If there is no term, or a term has a number that is not
            finite or a unit or block that does not exist.
    """

    coefficient: Tensor
    constant: Tensor
    entry_dim: Tensor
    entry_unit: Tensor
    entry_multiplier: Tensor
    factors: Tensor

    def __init__(
        self, terms: Sequence[Term], num_units: int, num_blocks: int
    ) -> None:
        super().__init__()
        if len(terms) == 0:
            raise ValueError(
                'terms is empty; a resource needs at least one '
                'layer that costs something.'
            )
        self.num_units = num_units
        self.num_blocks = num_blocks
        self.layers = tuple(term.layer for term in terms)
        for term in terms:
            _check_term(term, num_units, num_blocks)
        for name, value in _compile(terms).items():
            self.register_buffer(name, value, persistent=False)
        self.followings: Dict[int, Following] = {}
        self.register_buffer('links', torch.zeros(0, 4), persistent=False)

    def follow_(self, followings: Mapping[int, Following]) -> None:
        """Let some units keep a portion of what others keep.

        Their numbers stand for what they keep beside a leader that keeps
        everything; beside a narrower one it is that portion of the number.

        Args:
            followings (Mapping[int, Following]): By unit.
        """
        self.followings = dict(followings)
        if not followings:
            return
        alone = Following(0, 1, 1, 1)
        rows = [followings.get(u, alone) for u in range(self.num_units)]
        self.links = _double(rows).to(self.coefficient.device)

    def actual(self, kept: Tensor, whole: bool = False) -> Tensor:
        """Numbers of channels, followers as portions of their leaders'.

        Args:
            kept (Tensor): Kept numbers of the units, shape [..., U].
            whole (bool): Round those of followers to whole elements, as
                hard masks do. Defaults to False.

        Returns:
            Tensor: Shape [..., U], float64.
        """
        kept = kept.double()
        if not self.followings:
            return kept
        leader, leader_size, size, step = self.links.unbind(1)
        ratio = kept.index_select(-1, leader.long()) / leader_size
        number = kept * ratio
        if whole:
            number = torch.floor(number / step + 0.5 + ROUND_UP * size / step)
            number = number.clamp(min=1) * step
        follows = torch.zeros_like(size, dtype=torch.bool)
        follows[list(self.followings)] = True
        return torch.where(follows, number, kept)

    def forward(
        self, kept: Tensor, block_mask: Tensor, whole: bool = False
    ) -> Tensor:
        """The resource of the whole network.

        Args:
            kept (Tensor): Kept numbers of the units, shape [..., U]: of one
                network or of a batch of them.
            block_mask (Tensor): Depth masks of the blocks, shape [B].
            whole (bool): See :meth:`actual`. Defaults to False.

        Returns:
            Tensor: Shape [...], float64, differentiable in both.
        """
        return self.by_term(kept, block_mask, whole).sum(-1)

    def by_term(
        self, kept: Tensor, block_mask: Tensor, whole: bool = False
    ) -> Tensor:
        """The resource of each term.

        Args:
            kept (Tensor): Kept numbers of the units, shape [..., U].
            block_mask (Tensor): Depth masks of the blocks, shape [B].
            whole (bool): See :meth:`actual`. Defaults to False.

        Returns:
            Tensor: Shape [..., T], float64, differentiable in both.

        Raises:
            ValueError: If a shape is wrong.
        """
        self._check_shapes(kept, block_mask)
        kept, block_mask = self.actual(kept, whole), block_mask.double()
        batch = kept.shape[:-1]
        entries = kept.index_select(-1, self.entry_unit)
        dims = self.constant.expand(*batch, -1).index_add(
            -1, self.entry_dim, entries * self.entry_multiplier
        )
        # One gather for everything; the loop is over the few factors of a
        # term (torch.prod would synchronize in its backward).
        values = torch.cat([dims, block_mask.expand(*batch, -1)], -1)
        values = values.index_select(-1, self.factors.view(-1))
        cost = self.coefficient
        for factor in values.view(*batch, *self.factors.shape).unbind(-2):
            cost = cost * factor
        return cost

    @torch.no_grad()
    def by_layer(self, kept: Tensor, block_mask: Tensor) -> Dict[str, float]:
        """The resource of each layer, for reports.

        Synchronizes with the host.

        Args:
            kept (Tensor): Kept numbers of the units, shape [U].
            block_mask (Tensor): Depth masks of the blocks, shape [B].

        Returns:
            dict[str, float]: Layer names, in the order of the terms, to
            the sums of their terms.
        """
        result: Dict[str, float] = {}
        costs = self.by_term(kept, block_mask).tolist()
        for layer, cost in zip(self.layers, costs):
            result[layer] = result.get(layer, 0.0) + cost
        return result

    def extra_repr(self) -> str:
        """Sizes of the table, for printing a model."""
        return (
            f'terms={len(self.layers)}, units={self.num_units}, '
            f'blocks={self.num_blocks}'
        )

    def _check_shapes(self, kept: Tensor, block_mask: Tensor) -> None:
        for name, value, number in (
            ('kept', kept, self.num_units),
            ('block_mask', block_mask, self.num_blocks),
        ):
            is_batch = name == 'kept' and value.dim() > 1
            shape = value.shape[-1:] if is_batch else value.shape
            if shape != (number,):
                raise ValueError(
                    f'{name} must have shape [{number}], but '
                    f'got {list(value.shape)}.'
                )


def resource_loss(current: Tensor, target: Union[Tensor, float]) -> Tensor:
    """Resource constraint loss (Eq. 7).

    ``log(r_c / r_t)`` if the current resource r_c exceeds the target r_t,
    else 0. Does not synchronize with the host.

    Args:
        current (Tensor): Current resource r_c, >= 0.
        target (Tensor | float): Target r_t, > 0, in the same unit.

    Returns:
        Tensor: Loss >= 0, shape and dtype of ``current``.

    Raises:
        ValueError: If ``target`` is a number that is not positive.
    """
    if not isinstance(target, Tensor) and not target > 0:
        raise ValueError(f'target must be positive, but got {target}.')
    # Any ratio below 1 costs nothing; the bound keeps log finite at 0.
    return torch.relu(torch.log((current / target).clamp(min=0.5)))


def _check_term(term: Term, num_units: int, num_blocks: int) -> None:
    units = [unit for dim in term.dims for unit, _ in dim.units]
    numbers = [term.coefficient] + [dim.constant for dim in term.dims]
    numbers += [mult for dim in term.dims for _, mult in dim.units]
    for unit in units:
        if not 0 <= unit < num_units:
            raise ValueError(
                f'layer {term.layer!r} uses unit {unit}, but '
                f'there are {num_units} units.'
            )
    for block in (term.block, *(dim.block for dim in term.dims)):
        if block is not None and not 0 <= block < num_blocks:
            raise ValueError(
                f'layer {term.layer!r} is in block {block}, '
                f'but there are {num_blocks} blocks.'
            )
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(
            f'layer {term.layer!r} has a number that is not finite: {term}.'
        )


def _compile(terms: Sequence[Term]) -> Dict[str, Tensor]:
    """Turn the table into index tensors.

    Returns:
        dict[str, Tensor]: ``constant`` [D] of the unique dimensions; their
        sparse entries ``entry_dim``, ``entry_unit``, ``entry_multiplier``;
        ``factors`` [K, T], indices into dimensions followed by blocks;
        ``coefficient`` [T].
    """
    one = Dim(1.0)
    dims = {one: 0}
    for term in terms:
        for dim in term.dims:
            dims.setdefault(dim, len(dims))
    columns: List[List[int]] = []
    for term in terms:
        column = [dims[dim] for dim in term.dims]
        blocks = [term.block, *(dim.block for dim in term.dims)]
        column += [len(dims) + b for b in blocks if b is not None]
        columns.append(column)
    height = max(1, max(len(column) for column in columns))
    padded = [column + [0] * (height - len(column)) for column in columns]
    entries = [
        (index, unit, multiplier)
        for dim, index in dims.items()
        for unit, multiplier in dim.units
    ]
    return {
        'coefficient': _double([term.coefficient for term in terms]),
        'constant': _double([dim.constant for dim in dims]),
        'entry_dim': _long([index for index, _, _ in entries]),
        'entry_unit': _long([unit for _, unit, _ in entries]),
        'entry_multiplier': _double([mult for _, _, mult in entries]),
        'factors': _long(padded).t().contiguous(),
    }


def _double(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _long(values: Sequence) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
