"""What a search must know of one kind of layer, and where it is asked.

One file a kind of layer holds all of it: how channels pass, the form that
takes masks, what it costs, how it is timed and how it is cut. To add one,
derive from :class:`LayerKind`, override what differs, and register it::

    @register_kind
    class GatedKind(LayerKind):
        types = (Gated,)
        masked = {Gated: DMSGated}
        weights = ('value', 'gate')
        ...

Everything else asks :func:`kind_of`.
"""

from typing import (
    Any,
    ClassVar,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    Type,
    TypeVar,
    Union,
)

import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.layers.by_type import ByType

OUTPUTS, INPUTS = 'outputs', 'inputs'
"""The two sides of a layer."""

Indices = Optional[Tensor]
Entries = Tuple[float, Tuple[str, ...]]
"""A factor, and the sides whose numbers of channels it is multiplied by."""


class Call(NamedTuple):
    """One call of a module.

    Attributes:
        args (tuple): Positional arguments.
        kwargs (Mapping[str, Any]): Keyword arguments.
        output (Any): What it gave.
    """

    args: Tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any


class ChannelHolder:
    """Something without a layer that has one dimension of channels."""

    @property
    def channels(self) -> int:
        """Number of channels."""
        raise NotImplementedError

    def narrow(self, kept: Tensor) -> None:
        """Keep some channels, in place."""
        raise NotImplementedError


class LayerKind:
    """One kind of layer; instances have no state.

    What is written here holds for a layer that has ``in_channels`` and
    ``out_channels``, weights [out, in, ...] and maybe a ``bias`` [out].

    Attributes:
        types (tuple[type]): Classes of such layers; those that derive from
            them are meant, too.
        names (tuple[str]): Full names of further classes, of libraries that
            nobody needs to have.
        masked (Mapping[type, type]): Exact class → the class that takes
            masks. A class that derives from another may compute something
            else, so it has none unless it stands here.
        mixes (bool): Whether the channels that it gives are new ones, each
            made of all that it reads: a conv or linear layer. Only between
            those are channels searched. Defaults to True.
        passes (bool): Whether it gives the channels that it reads, each with
            parameters of its own: a norm. Defaults to False.
        weights (tuple[str]): Parameters that are multiplied with what is
            read, which costs MACs. Defaults to ('weight',).
        leaf (bool): Whether a trace must not look into it. Defaults to True.
    """

    types: ClassVar[Tuple[type, ...]] = ()
    names: ClassVar[Tuple[str, ...]] = ()
    masked: ClassVar[Mapping[type, type]] = {}
    mixes: ClassVar[bool] = True
    passes: ClassVar[bool] = False
    weights: ClassVar[Tuple[str, ...]] = ('weight',)
    leaf: ClassVar[bool] = True

    def find_masked(self, layer_type: type) -> Optional[type]:
        """The class that takes masks, if there is one."""
        return _MASKED.get(layer_type)

    @property
    def before(self) -> Tuple[type, ...]:
        """Types of another kind of whose descendants it recognizes some."""
        return ()

    def recognizes(self, layer_type: type) -> bool:
        """Whether a class that has no kind by its types is of this one.

        For classes that everybody writes anew, told by what they compute.
        """
        return False

    def applies(self, layer: nn.Module) -> bool:
        """Whether a layer of these types is of this kind after all."""
        return True

    def unsupported(self, layer: nn.Module) -> str:
        """Why this layer cannot be searched; empty if it can."""
        return ''

    # how channels pass

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of channels on one side."""
        return layer.in_channels if is_input else layer.out_channels

    def groups(self, layer: nn.Module) -> int:
        """In how many groups channels are treated; 0 or 1: together."""
        return getattr(layer, 'groups', 1)

    def is_depthwise(self, layer: nn.Module) -> bool:
        """Whether each channel that it gives comes from one that it reads."""
        return False

    def acts_alone(self, layer: nn.Module) -> bool:
        """Whether what it gives for a channel depends on that one alone.

        Then the masks of the layers that read it suffice. A second one would
        count twice: a norm behind a depthwise convolution would see its
        square. In a group norm it is whole groups, which are kept or removed
        together.
        """
        return self.is_depthwise(layer)

    def fewest_inputs(self, layer: nn.Module) -> int:
        """With how many input channels its code can do."""
        return 1

    def channels_first(self, layer: nn.Module) -> bool:
        """Whether channels precede positions in what it gives."""
        return False

    # what it costs

    def positions(self, layer: nn.Module, call: Call) -> int:
        """How often its weights are applied in one call, for all images."""
        return call.output.numel() // self.channels(layer, False)

    def entries(self, layer: nn.Module, key: str) -> Entries:
        """Numbers in one of its parameters.

        Returns:
            tuple: A factor and the sides: (9.0, ('outputs', 'inputs')) for
            the weight of a 3 x 3 convolution.
        """
        size = float(getattr(layer, key).numel())
        if key in self.weights:
            sides = (OUTPUTS, INPUTS)
        elif key == 'bias':
            sides = (OUTPUTS,)
        else:
            return size, ()
        for side in sides:
            size /= self.channels(layer, side == INPUTS)
        return size, sides

    def macs(self, layer: nn.Module) -> float:
        """MACs of one application of its weights."""
        return float(sum(getattr(layer, key).numel() for key in self.weights))

    def weights_by_outputs(self, layer: nn.Module) -> List[Tensor]:
        """Its weights as [out, in, ...]."""
        return [getattr(layer, key) for key in self.weights]

    def describe(self, layer: nn.Module, output: Tensor) -> str:
        """Type, widths and output size of one call, for latency tables."""
        read, given = (self.channels(layer, side) for side in (True, False))
        rows = self.positions(layer, Call((), {}, output))
        return f'{type(layer).__name__}, {read} to {given}, {rows}'

    # how it is cut

    def narrow(
        self, layer: nn.Module, out_kept: Indices, in_kept: Indices
    ) -> None:
        """Keep some channels, in place."""
        for key in self.weights:
            weight = select(getattr(layer, key), 0, out_kept)
            setattr(layer, key, select(weight, 1, in_kept))
        if getattr(layer, 'bias', None) is not None:
            layer.bias = select(layer.bias, 0, out_kept)
        first = getattr(layer, self.weights[0])
        layer.out_channels, layer.in_channels = first.shape[:2]


class PassingKind(LayerKind):
    """A layer that gives the channels that it reads.

    It has one parameter of each sort per channel.

    Attributes:
        vectors (tuple[str]): Parameters and buffers [C].
    """

    mixes: ClassVar[bool] = False
    passes: ClassVar[bool] = True
    weights: ClassVar[Tuple[str, ...]] = ()
    vectors: ClassVar[Tuple[str, ...]] = ('weight', 'bias')

    def groups(self, layer: nn.Module) -> int:
        """None."""
        return 0

    def channels_first(self, layer: nn.Module) -> bool:
        """As a convolution, which it stands behind."""
        return True

    def entries(self, layer: nn.Module, key: str) -> Entries:
        """One number, or some, for each channel."""
        numbers = getattr(layer, key).numel()
        return numbers / self.channels(layer, False), (OUTPUTS,)

    def narrow(
        self, layer: nn.Module, out_kept: Indices, in_kept: Indices
    ) -> None:
        """Keep some channels, in place."""
        kept = out_kept if in_kept is None else in_kept
        if kept is None:
            return
        self.keep(layer, kept)
        for key in self.vectors:
            setattr(layer, key, select(getattr(layer, key), 0, kept))

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Set its numbers of channels; its vectors are cut afterwards."""
        raise NotImplementedError


_KINDS: ByType[LayerKind] = ByType()
_RECOGNIZING: List[LayerKind] = []
_MASKED: Dict[type, type] = {}
# Of the types that were asked for so far:
_FORMS: Dict[type, Optional[type]] = {}

KindType = TypeVar('KindType', bound=Type[LayerKind])


def register_kind(kind: KindType) -> KindType:
    """Make a kind of layer known."""
    _KINDS.add(kind(), (*kind.types, *kind.names))
    if kind.recognizes is not LayerKind.recognizes:
        _RECOGNIZING.append(kind())
    for layer_type, masked in kind.masked.items():
        register_masked(layer_type, masked)
    return kind


def register_masked(layer_type: type, masked: type) -> None:
    """Let a class of a known kind take masks as another class."""
    _MASKED[layer_type] = masked
    _FORMS.clear()


def kind_of_type(layer_type: type) -> Optional[LayerKind]:
    """The kind of the layers of a class, or ``None``."""
    for kind in _RECOGNIZING:
        if issubclass(layer_type, kind.before) and kind.recognizes(layer_type):
            return kind
    found = _KINDS.find(layer_type)
    if found is not None:
        return found
    return next((k for k in _RECOGNIZING if k.recognizes(layer_type)), None)


def kind_of(layer: object) -> Optional[LayerKind]:
    """The kind of a layer, or ``None`` for what is none."""
    kind = kind_of_type(type(layer))
    return kind if kind is not None and kind.applies(layer) else None


def masked_form(layer_type: type) -> Optional[type]:
    """The class that takes masks for exactly this class, or ``None``."""
    if layer_type not in _FORMS:
        kind = kind_of_type(layer_type)
        found = None if kind is None else kind.find_masked(layer_type)
        _FORMS[layer_type] = found
    return _FORMS[layer_type]


def is_weighted(layer: object) -> bool:
    """Whether it is a conv or linear layer: its outputs are new channels."""
    kind = kind_of(layer)
    return kind is not None and kind.mixes


def is_norm(layer: object) -> bool:
    """Whether its inputs and outputs are the same channels."""
    kind = kind_of(layer)
    return kind is not None and kind.passes


def is_layer(layer: object) -> bool:
    """Whether it can be narrowed: conv, linear, norm or PReLU."""
    return is_weighted(layer) or is_norm(layer)


def acts_alone(layer: object) -> bool:
    """See :meth:`LayerKind.acts_alone`."""
    kind = kind_of(layer)
    return kind is not None and kind.acts_alone(layer)


def is_depthwise(layer: object) -> bool:
    """See :meth:`LayerKind.is_depthwise`."""
    kind = kind_of(layer)
    return kind is not None and kind.is_depthwise(layer)


def channels_of(layer: Union[nn.Module, ChannelHolder], is_input: bool) -> int:
    """Number of channels on one side of a layer or a holder."""
    if isinstance(layer, ChannelHolder):
        return layer.channels
    return _known(layer).channels(layer, is_input)


def narrow_layer(
    layer: Union[nn.Module, ChannelHolder],
    out_kept: Indices,
    in_kept: Indices,
) -> Union[nn.Module, ChannelHolder]:
    """Keep some channels of a plain layer or a holder, in place.

    Args:
        layer (nn.Module | ChannelHolder): A plain layer, or something else
            with channels.
        out_kept (Tensor, optional): Output channels to keep; None: all.
        in_kept (Tensor, optional): Input channels to keep; None: all.

    Raises:
        DMSError: If the type is not supported, or the groups of a layer
            would become unequal.
    """
    if isinstance(layer, ChannelHolder):
        layer.narrow(out_kept if in_kept is None else in_kept)
    else:
        _known(layer).narrow(layer, out_kept, in_kept)
    return layer


def _known(layer: nn.Module) -> LayerKind:
    kind = kind_of(layer)
    if kind is None:
        raise DMSError(f'cannot narrow a {type(layer).__name__}.')
    return kind


def select(tensor: Optional[Tensor], dim: int, kept: Indices) -> Any:
    """Some slices of a tensor; a parameter stays a parameter."""
    if tensor is None or kept is None:
        return tensor
    data = tensor.detach().index_select(dim, kept.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def kept_by_group(channels: int, groups: int, kept: Indices) -> Tensor:
    """Which channels of each group are kept: bool [G, channels / G]."""
    mask = torch.ones(channels, dtype=torch.bool)
    if kept is not None:
        mask.zero_()
        mask[kept.cpu()] = True
    return mask.view(groups, -1)
