"""What the layers of a supernet have in common, and how they come into it."""

from typing import Any, ClassVar, Dict, List, Optional, Tuple, Type

import torch
from mmrazor.models.architectures.dynamic_ops import DynamicChannelMixin
from mmrazor.models.mutables.base_mutable import BaseMutable
from torch import Tensor, nn

from dms_mmrazor.layers.block import block_kind_of
from dms_mmrazor.layers.fold import fold_masks
from dms_mmrazor.layers.kind import masked_form, narrow_layer
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

    Without masks it computes what the plain layer computes. A class that is
    made by its constructor, too, has it before the plain layer.

    Attributes:
        one_sided (bool): Whether its inputs and outputs are the same
            channels, which one container has the masks of. Defaults to
            False.
        carries_depth (bool): Whether a mask of its inputs or outputs can
            carry the depth mask, too.
        transposed_weight (bool): Whether its weight is [in, out / groups,
            ...].
        given (LayerMasks, optional): Its masks of the current step, once
            they are planned. Defaults to None: it composes them.
    """

    one_sided: ClassVar[bool] = False
    carries_depth: ClassVar[bool] = False
    transposed_weight: ClassVar[bool] = False

    mutable_attrs: nn.ModuleDict
    depth: Optional[DepthHandle]
    rows: Optional[RowMask]
    given: Optional[LayerMasks]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_masks()

    @classmethod
    def convert_from(cls, module: nn.Module) -> 'DMSOp':
        """Take over all state of a plain layer (stock ops drop weights).

        Parameters, buffers and hooks are shared with ``module``, which is
        to be thrown away.
        """
        # Not by the constructor: it would draw random numbers, and own
        # classes may take other arguments.
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
        self.mutable_attrs[self._side(attr)] = mutable

    def get_mutable_attr(self, attr: str) -> Optional[DMSChannelContainer]:
        """The container of one side's masks, or ``None``."""
        name = self._side(attr)
        return self.mutable_attrs[name] if name in self.mutable_attrs else None

    def _side(self, attr: str) -> str:
        """Under which name the container of a side is."""
        self.check_mutable_attr_valid(attr)
        return 'in_channels' if self.one_sided else attr

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


def replace_with_dynamic(model: nn.Module, name: str) -> DMSOp:
    """Make layer ``name`` of ``model`` dynamic, unless it already is.

    A layer that several modules share (the heads of all levels, say) stays
    shared. What would compute it without calling it is made to call it.

    Returns:
        DMSOp: The dynamic layer, now part of the model.
    """
    parent_name, _, child_name = name.rpartition('.')
    parent = model.get_submodule(parent_name)
    module = getattr(parent, child_name)
    if isinstance(module, DMSOp):
        return module
    dynamic = masked_form(type(module)).convert_from(module)
    _put(model, module, dynamic)
    call_modules_of(model, parent_name)
    return dynamic


def call_modules_of(model: nn.Module, name: str) -> None:
    """Let a module and those around it call all modules inside.

    Encoder layers of torch do not in evaluation, where masks and hooks would
    be lost.

    Args:
        model (nn.Module): The supernet.
        name (str): Full name of a module of it.
    """
    while name:
        module = model.get_submodule(name)
        kind = block_kind_of(module)
        if kind is not None and type(module) in kind.calling:
            calling = kind.calling[type(module)]
            _put(model, module, calling.convert_from(module))
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # only torch's kernels read them
        name = name.rpartition('.')[0]


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Let all modules that have the old one have the new one."""
    for owner in model.modules():
        for key, child in owner._modules.items():
            if child is old:
                setattr(owner, key, new)
