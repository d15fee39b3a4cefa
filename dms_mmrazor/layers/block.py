"""What a search must know of one kind of block of layers.

A block is more than a layer: an attention multiplies what its layers give,
a list of blocks may feed a concatenation, a module may keep a number of
channels beside its layers. A library's file in `plugins/` holds a handler
for each of its blocks, which everything else asks::

    @register_block
    class ShuffleKind(BlockKind):
        types = (ShuffleBlock,)

        def refresh(self, block, model):
            block.channels = block.conv.out_channels
"""

from typing import (
    Any,
    ClassVar,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

from torch import nn

from dms_mmrazor.layers.by_type import ByType
from dms_mmrazor.layers.kind import Call, ChannelHolder

Products = List[Tuple[float, Tuple[Any, ...]]]
"""A sum of products: coefficients times numbers of kept channels."""


class RepeatedSlice(NamedTuple):
    """Input channels of a layer that come out of a block alone.

    Attributes:
        layer (str): Name of the layer.
        start (int): Its first such input channel.
        end (int): The one after the last.
    """

    layer: str
    start: int
    end: int


class BlockKind:
    """One kind of block; instances have no state.

    What is written here holds for a block that is nothing but its layers.
    The ``sides`` below (:class:`SearchedSides`) tell of which units the
    channels of a part are: ``sides.dim('attn.heads', False)``.

    Attributes:
        types (tuple[type]): Classes of such blocks; those that derive from
            them are meant, too.
        names (tuple[str]): Full names of further classes, of libraries that
            nobody needs to have.
        opaque (bool): Whether a trace must not look into it. Defaults to
            False.
        multiplies (bool): Whether it multiplies outside of its layers, which
            costs MACs. Defaults to False.
        uncalled (tuple[str]): Layers in it whose weights it reads without
            calling them. Defaults to ().
        calling (Mapping[type, type]): Exact class of a block with layers
            that it does not call → the class that calls them, which takes
            its place in a supernet. Defaults to {}.
        core (str, optional): Where in it an attention is of which a trace
            shows the input and output layers, if its own code only moves
            positions. Defaults to ``None``, nowhere.
        source (str, optional): Where in it a layer is that alone gives its
            channels, and reads none of the model's. It must be `opaque`.
            Defaults to ``None``, nowhere.
    """

    types: ClassVar[Tuple[type, ...]] = ()
    names: ClassVar[Tuple[str, ...]] = ()
    opaque: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    uncalled: ClassVar[Tuple[str, ...]] = ()
    calling: ClassVar[Mapping[type, type]] = {}
    core: ClassVar[Optional[str]] = None
    source: ClassVar[Optional[str]] = None

    def applies(self, block: nn.Module) -> bool:
        """Whether a module of these types is of this kind after all."""
        return True

    # its channels

    def holders(self, block: nn.Module) -> Dict[str, ChannelHolder]:
        """What has channels in it besides its layers and parameters.

        Returns:
            dict[str, ChannelHolder]: Name within the block → holder; '' is
            the block itself.
        """
        return {}

    def widths(
        self, sides: Any, name: str, child: str, is_input: bool
    ) -> Optional[Products]:
        """Channels of one side of a layer of it, if they are products.

        Args:
            sides (SearchedSides): The searched supernet.
            name (str): Full name of the block.
            child (str): Name of the layer in it.
            is_input (bool): Which side of the layer.

        Returns:
            list, optional: ``None`` for a layer like any other.
        """
        return None

    # what it costs besides its layers, if it `multiplies`

    def positions(self, block: nn.Module, call: Call) -> Dict[str, int]:
        """How often each part of it is applied in one call, for all images.

        Returns:
            dict[str, int]: Name of a part → applications; '' for the block
            itself.
        """
        raise NotImplementedError

    def macs(self, block: nn.Module, part: str = '') -> float:
        """MACs of one application of a part at full width."""
        raise NotImplementedError

    def products(self, sides: Any, name: str, part: str = '') -> Products:
        """The same in terms of what is kept.

        Args:
            sides (SearchedSides): The searched supernet.
            name (str): Full name of the block.
            part (str): As of :meth:`positions`. Defaults to ''.
        """
        raise NotImplementedError

    def entries(self, sides: Any, name: str, key: str) -> Optional[Products]:
        """Numbers in one of its own parameters, if they are products.

        Returns:
            list, optional: ``None`` for a parameter like any other.
        """
        return None

    # how it is cut

    def repeated(self, block: nn.Module, path: str) -> Optional[RepeatedSlice]:
        """What a concatenation in it loses with a block inside.

        Args:
            block (nn.Module): The plain block.
            path (str): Name of the removable block within it.

        Returns:
            RepeatedSlice, optional: With a layer's name within the block.
        """
        return None

    def merge(self, block: nn.Module, removed: Sequence[str]) -> None:
        """Make up for blocks that will be removed, in place.

        Args:
            block (nn.Module): It has all its blocks still.
            removed (Sequence[str]): Their names in their list.
        """

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """Let numbers that its code reads follow the narrowed layers.

        Args:
            block (nn.Module): Its layers have been narrowed.
            model (nn.Module): The whole plain model.
        """


class EqualPartsKind(BlockKind):
    """A block that splits into equal parts by a number of its own.

    All parts keep the same channels.

    Attributes:
        number (str): Attribute of the block: the channels of a part.
        reader (str): A layer in it that reads one part; without one, the
            number stays.
    """

    number: ClassVar[str]
    reader: ClassVar[str]

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """That number."""
        layer = dict(block.named_modules()).get(self.reader)
        if layer is not None:
            setattr(block, self.number, layer.in_channels)


_BLOCKS: ByType[BlockKind] = ByType()

KindType = TypeVar('KindType', bound=Type[BlockKind])


def register_block(kind: KindType) -> KindType:
    """Make a kind of block known."""
    _BLOCKS.add(kind(), (*kind.types, *kind.names))
    return kind


def block_kind_of(module: object) -> Optional[BlockKind]:
    """The kind of a block, or ``None`` for what is nothing but its layers."""
    kind = _BLOCKS.find(type(module))
    return kind if kind is not None and kind.applies(module) else None


def known_blocks(
    model: nn.Module,
) -> Iterator[Tuple[str, nn.Module, BlockKind]]:
    """Name, module and kind of all blocks of a model that have one."""
    for name, module in model.named_modules():
        kind = block_kind_of(module)
        if kind is not None:
            yield name, module, kind


def multiplies(module: object) -> bool:
    """See :class:`BlockKind`."""
    kind = block_kind_of(module)
    return kind is not None and kind.multiplies


class Multiplier(NamedTuple):
    """A block that multiplies outside of its layers, or a part of it.

    Attributes:
        kind (BlockKind): Its handler.
        name (str): Its full name.
        part (str): As of :meth:`BlockKind.positions`.
    """

    kind: BlockKind
    name: str
    part: str


def find_multiplier(
    modules: Mapping[str, nn.Module], name: str
) -> Optional[Multiplier]:
    """The block whose own products a profile is of, or ``None``: a layer.

    Args:
        modules (Mapping[str, nn.Module]): All modules by name.
        name (str): Of the profile: a block's, maybe with that of its part.
    """
    owner, part = name, ''
    if name not in modules:
        owner, _, part = name.rpartition('.')
    kind = block_kind_of(modules[owner])
    if kind is None or not kind.multiplies:
        return None
    return Multiplier(kind, owner, part)


def block_holders(model: nn.Module) -> Dict[str, ChannelHolder]:
    """What has channels in the blocks of a model: full name → holder."""
    return {
        f'{name}.{key}' if key else name: holder
        for name, module, kind in known_blocks(model)
        for key, holder in kind.holders(module).items()
    }


def find_holder(model: nn.Module, name: str) -> Optional[ChannelHolder]:
    """What a block holds under a full name, or ``None``.

    Args:
        model (nn.Module): Any model.
        name (str): ``backbone.layers.0.attn.heads``, say.
    """
    owner, _, key = name.rpartition('.')
    try:
        module = model.get_submodule(owner)
    except AttributeError:  # what it names is no part of a module
        return None
    kind = block_kind_of(module)
    return None if kind is None else kind.holders(module).get(key)


def repeated_slice(model: nn.Module, block: str) -> Optional[RepeatedSlice]:
    """What a concatenation loses with a block, if the block feeds one.

    Args:
        model (nn.Module): The plain supernet.
        block (str): Full name of a removable block in a list.
    """
    blocks, _, child = block.rpartition('.')
    name, _, attribute = blocks.rpartition('.')
    owner = model.get_submodule(name)
    kind = block_kind_of(owner)
    if kind is None:
        return None
    found = kind.repeated(owner, f'{attribute}.{child}')
    prefix = f'{name}.' if name else ''
    return found and found._replace(layer=f'{prefix}{found.layer}')


def refresh_attributes(model: nn.Module) -> None:
    """Let numbers that forward passes read follow the narrowed layers.

    Args:
        model (nn.Module): A plain model; it is changed in place.
    """
    for _, module, kind in known_blocks(model):
        kind.refresh(module, model)
