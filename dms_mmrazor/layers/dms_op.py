"""What the layers of a supernet have in common."""

from typing import Any, ClassVar, Dict, List, Optional, Set, Tuple, Type

import torch
from mmrazor.models.architectures.dynamic_ops import DynamicChannelMixin
from mmrazor.models.mutables.base_mutable import BaseMutable
from torch import Tensor, nn

from dms_mmrazor.layers.fold import fold_masks
from dms_mmrazor.layers.kind import narrow_layer
from dms_mmrazor.models.mutables import (
    DMSChannelContainer,
    DMSMutableDepth,
    LayerMasks,
    Places,
    PlannedMask,
)

# What a dynamic layer has and its plain one has not.
_OWN = ('depth', 'rows', 'given', 'norm', 'affine_in_reader')


class DepthHandle:
    """Which block's depth mask a layer carries.

    A plain object: the mutable stays registered once, in its unit.
    """

    def __init__(self, mutable: DMSMutableDepth, index: int) -> None:
        self.mutable = mutable
        self.index = index

    @property
    def mask(self) -> Optional[Tensor]:
        """0-dim mask of the block at this step; ``None``: it is kept."""
        masks = self.mutable.mask
        return None if masks is None else masks[self.index]

    @property
    def places(self) -> Optional[Places]:
        """Where that mask is, [1, 1]."""
        places = self.mutable.places
        if places is None:
            return None
        index = places.index[:, self.index : self.index + 1]
        return Places(places.table, index)


class RowMask:
    """Mask of a layer's outputs, for those that no other layer can mask.

    Such are the queries of an attention. A plain object, as
    :class:`DepthHandle` is.
    """

    @property
    def places(self) -> Optional[Places]:
        """Where the masks of all outputs are; ``None``: all are kept."""
        raise NotImplementedError

    @property
    def mask(self) -> Optional[Tensor]:
        """[out] of the current step, or ``None``."""
        places = self.places
        return None if places is None else places.read()


class DMSOp(DynamicChannelMixin):
    """A plain layer plus masks; keeps its parameters, buffers and keys.

    Without masks it computes what the plain layer computes.

    Attributes:
        carries_depth (bool): Whether a mask of its inputs or outputs can
            carry the depth mask, too.
        transposed_weight (bool): Whether its weight is [in, out / groups,
            ...].
        given (LayerMasks, optional): Its masks of the current step, once
            they are planned. Defaults to None: it composes them.
    """

    carries_depth: ClassVar[bool] = False
    transposed_weight: ClassVar[bool] = False

    accepted_mutable_attrs: Set[str] = {'in_channels', 'out_channels'}
    attr_mappings: Dict[str, str] = {
        'in_channels': 'in_channels',
        'out_channels': 'out_channels',
    }

    mutable_attrs: nn.ModuleDict
    depth: Optional[DepthHandle]
    rows: Optional[RowMask]
    given: Optional[LayerMasks]

    @classmethod
    def convert_from(cls, module: nn.Module) -> 'DMSOp':
        """Take over all state of a plain layer (stock ops drop weights).

        Parameters, buffers and hooks are shared with ``module``, which is
        to be thrown away.
        """
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.__dict__.update(module.__dict__)
        new.init_masks()
        return new

    def init_masks(self) -> None:
        """Start without masks."""
        self.mutable_attrs = nn.ModuleDict()
        self.depth = None
        self.rows = None
        self.given = None

    def register_mutable_attr(self, attr: str, mutable: BaseMutable) -> None:
        """Attach the container of one side's masks."""
        self.check_mutable_attr_valid(attr)
        self.mutable_attrs[self.attr_mappings[attr]] = mutable

    def get_mutable_attr(self, attr: str) -> Optional[DMSChannelContainer]:
        """The container of one side's masks, or ``None``."""
        self.check_mutable_attr_valid(attr)
        name = self.attr_mappings[attr]
        return self.mutable_attrs[name] if name in self.mutable_attrs else None

    def attach_depth(self, mutable: DMSMutableDepth, index: int) -> None:
        """Carry the depth mask of block ``index`` of a stage."""
        self.depth = DepthHandle(mutable, index)

    def masks(self) -> LayerMasks:
        """Its masks at this step."""
        return self.composed_masks() if self.given is None else self.given

    def composed_masks(self) -> LayerMasks:
        """Its masks from those that its containers and handles read."""
        container = self.get_mutable_attr('in_channels')
        return LayerMasks(
            None if container is None else container.mask,
            None if self.rows is None else self.rows.mask,
            None if self.depth is None else self.depth.mask,
        )

    def plan_masks(self) -> List[PlannedMask]:
        """Let it be given its masks from now on.

        Returns:
            list[PlannedMask]: What it is to be given.
        """
        sources = {
            'inputs': self.get_mutable_attr('in_channels'),
            'outputs': self.rows,
            'depth': self.depth,
        }
        found: Dict[str, Tensor] = {}
        for name, source in sources.items():
            places = None if source is None else source.places
            if places is not None:
                found[name] = places.index
        carrier = 'inputs' if 'inputs' in found else 'outputs'
        carried = self.carries_depth and {carrier, 'depth'} <= set(found)
        if carried:
            # A factor of a small mask costs nothing, one of a weight does.
            length = found[carrier].shape[1]
            depth = found['depth'].expand(-1, length)
            found[carrier] = torch.cat([found[carrier], depth])
        self.given = LayerMasks(carried=carried)
        return [
            PlannedMask(self.given, name, index)
            for name, index in found.items()
        ]

    def fold(
        self, weight: Tensor, bias: Optional[Tensor], groups: int = 1
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Weight and bias with the masks of this step multiplied in."""
        return fold_masks(
            weight, bias, self.masks(), groups, self.transposed_weight
        )

    @property
    def static_op_factory(self) -> Type[nn.Module]:
        """The plain layer's class: the first one that is not ours."""
        return next(
            base
            for base in type(self).__mro__
            if issubclass(base, nn.Module) and not issubclass(base, DMSOp)
        )

    def to_plain_op(self) -> nn.Module:
        """The plain layer, everything kept, with the same parameters."""
        plain = self.static_op_factory.__new__(self.static_op_factory)
        nn.Module.__init__(plain)
        plain.__dict__.update(_plain_state(self))
        return plain

    def to_static_op(self) -> nn.Module:
        """A plain layer with the channels kept now (MMRazor's interface)."""
        return narrow_layer(
            self.to_plain_op(),
            self._kept_indices('out_channels'),
            self._kept_indices('in_channels'),
        )

    def _kept_indices(self, attr: str) -> Optional[Tensor]:
        container = self.get_mutable_attr(attr)
        if container is None:
            return None
        return container.current_mask.nonzero().flatten()


def _plain_state(module: DMSOp) -> Dict[str, Any]:
    """State of a layer without its masks."""
    state = dict(module.__dict__)
    for key in _OWN:
        state.pop(key, None)
    state['_modules'] = {
        k: v for k, v in module._modules.items() if k != 'mutable_attrs'
    }
    state['_parameters'] = dict(module._parameters)
    state['_buffers'] = dict(module._buffers)
    return state
