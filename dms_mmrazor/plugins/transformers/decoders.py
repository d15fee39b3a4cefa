"""Decoders of ``transformers`` (Llama and its kin), known by their names.

Llama's attention has four linear layers. With G groups of keys and values,
R query heads in each of them and a head dim d, ``k_proj`` and ``v_proj``
give G · d channels, ``q_proj`` G · R · d, which ``o_proj`` reads. Widths are
therefore those of linear layers, as anywhere else; what a decoder adds are
the MACs of the two products of its attention, and numbers that its code
keeps beside the layers.

Nothing here imports ``transformers``.
"""

from copy import deepcopy
from typing import (
    Any,
    ClassVar,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from torch import Tensor, nn

from dms_mmrazor.graph.model_kind import ModelKind, register_model
from dms_mmrazor.layers.block import (
    BlockKind,
    Products,
    register_block,
)
from dms_mmrazor.layers.by_type import qualified_name
from dms_mmrazor.layers.kind import Call, PassingKind, register_kind
from dms_mmrazor.layers.rms_norm import masked_rms_norm

DECODERS = {
    'llama': 'Llama',
    'mistral': 'Mistral',
    'qwen2': 'Qwen2',
    'qwen3': 'Qwen3',
}
"""Language models: folder → prefix of the classes."""


def _names(part: str) -> Tuple[str, ...]:
    """Full names of the classes of one part of all :data:`DECODERS`."""
    return tuple(
        f'transformers.models.{file}.modeling_{file}.{prefix}{part}'
        for file, prefix in DECODERS.items()
    )


ATTENTIONS = _names('Attention')
"""Attentions with ``q_proj``, ``k_proj``, ``v_proj`` and ``o_proj``."""

FFNS = _names('MLP')
"""Gated networks: ``down_proj(act(gate_proj(x)) * up_proj(x))``."""

RMS_NORMS = _names('RMSNorm')
"""Norms by the root of the mean square, with a ``weight``."""

PRETRAINED = 'transformers.modeling_utils.PreTrainedModel'

SIZES = ('num_attention_heads', 'num_key_value_heads', 'intermediate_size')
"""Keys of a config that may differ from layer to layer."""


class GroupedHeads(NamedTuple):
    """Heads of a grouped-query attention.

    Attributes:
        groups (int): Heads of keys and values, G.
        queries (int): Query heads of each of them, R.
        dims (int): Dims of a head, d.
    """

    groups: int
    queries: int
    dims: int


def is_one_of(module: object, names: Sequence[str]) -> bool:
    """Whether a module is of one of the classes with these full names."""
    own = {qualified_name(base) for base in type(module).__mro__}
    return not own.isdisjoint(names)


def grouped_heads(attention: nn.Module) -> GroupedHeads:
    """Heads of an attention, as its layers have them.

    Args:
        attention (nn.Module): One of :data:`ATTENTIONS`.
    """
    dims = attention.head_dim
    groups = attention.k_proj.out_features // dims
    heads = attention.q_proj.out_features // dims
    return GroupedHeads(groups, heads // groups, dims)


def is_decoder(module: nn.Module) -> bool:
    """Whether a module is a stack of known decoder layers."""
    layers = getattr(module, 'layers', None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    attention = getattr(layers[0], 'self_attn', None)
    return is_one_of(attention, ATTENTIONS)


def decoders(model: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    """Stacks of decoder layers in a model, with their names.

    Args:
        model (nn.Module): Any model.

    Yields:
        tuple[str, nn.Module]: Name and module, which has ``embed_tokens``,
        ``layers`` and ``norm``.
    """
    for name, module in model.named_modules():
        if is_decoder(module):
            yield name, module


def layer_sizes(decoder: nn.Module) -> List[Dict[str, int]]:
    """:data:`SIZES` of each layer of a decoder.

    Args:
        decoder (nn.Module): As of :func:`decoders`.
    """
    sizes = []
    for layer in decoder.layers:
        heads = grouped_heads(layer.self_attn)
        numbers = (
            heads.groups * heads.queries,
            heads.groups,
            layer.mlp.gate_proj.out_features,
        )
        sizes.append(dict(zip(SIZES, numbers)))
    return sizes


def _config_of(decoder: nn.Module) -> Any:
    """The config that describes a decoder as it is."""
    config = deepcopy(decoder.config)
    sizes = layer_sizes(decoder)
    # What most layers have is the rule.
    rule = {
        key: max(numbers, key=numbers.count)
        for key in SIZES
        for numbers in [[size[key] for size in sizes]]
    }
    different = {
        str(index): {key: n for key, n in size.items() if n != rule[key]}
        for index, size in enumerate(sizes)
        if size != rule
    }
    for key, number in rule.items():
        setattr(config, key, number)
    config.head_dim = decoder.layers[0].self_attn.head_dim
    config.hidden_size = decoder.embed_tokens.weight.shape[1]
    config.num_hidden_layers = len(decoder.layers)
    if getattr(config, 'layer_types', None) is not None:
        kinds = [
            getattr(layer, 'attention_type', 'full_attention')
            for layer in decoder.layers
        ]
        config.layer_types = kinds
    if different:
        config.per_layer_config = different
    elif hasattr(config, 'per_layer_config'):
        del config.per_layer_config
    return config


_UNKNOWN = (
    '{} is a language model whose layers are not known (Llama, Mistral, Qwen2 '
    'and Qwen3 are). Declare for each of its layers what belongs together: '
    "`mutator.groups=[dict(outputs=['…fc_in'], inputs=['…fc_out']), "
    "dict(outputs=['…q', '…k', '…v'], inputs=['…out'], heads=12), …]`."
)


@register_model
class PretrainedKind(ModelKind):
    """Models of transformers."""

    names = (PRETRAINED,)

    def vocabulary(self, model: nn.Module) -> int:
        """Of one whose inputs are tokens."""
        if model.main_input_name != 'input_ids':
            return 0
        return int(model.config.get_text_config().vocab_size)

    def untraceable(self, model: nn.Module) -> str:
        """A causal language model: its caches and masks end a trace."""
        if not model.can_generate():
            return ''
        return _UNKNOWN.format(type(model).__name__)


@register_block
class DecoderAttentionKind(BlockKind):
    """Attention with queries in groups."""

    names = ATTENTIONS
    multiplies: ClassVar[bool] = True

    def positions(self, block: nn.Module, call: Call) -> Dict[str, int]:
        """Pairs of tokens, of all images.

        A causal mask is not taken advantage of: L² pairs for L tokens.
        """
        # Its input may be a keyword; the first output has the same shape.
        images, tokens = call.output[0].shape[:2]
        return {'': images * tokens**2}

    def macs(self, block: nn.Module, part: str = '') -> float:
        """MACs of both products for one pair of tokens."""
        return 2.0 * block.o_proj.in_features

    def products(self, sides: Any, name: str, part: str = '') -> Products:
        """The same in terms of what is kept."""
        read = sides.products(f'{name}.o_proj', True)
        return [(2 * number, dims) for number, dims in read]


@register_block
class DecoderKind(BlockKind):
    """A stack of decoder layers."""

    names = _names('Model')

    def refresh(self, block: nn.Module, model: nn.Module) -> None:
        """Numbers beside the layers, and those in the config.

        The config is replaced, as other models may have the same one: what
        all layers share is in the usual keys, what differs in
        ``per_layer_config``, as transformers 5 writes it.
        """
        for index, layer in enumerate(block.layers):
            layer.self_attn.layer_idx = index
            heads = grouped_heads(layer.self_attn)
            layer.self_attn.num_key_value_groups = heads.queries
        old, new = block.config, _config_of(block)
        for module in model.modules():
            if getattr(module, 'config', None) is old:
                module.config = new


@register_kind
class RMSNormKind(PassingKind):
    """Norms by the root of the mean square, of these decoders."""

    names = RMS_NORMS
    vectors = ('weight',)

    def find_masked(self, layer_type: type) -> Optional[type]:
        """Made when it is needed."""
        return super().find_masked(layer_type) or (
            masked_rms_norm(layer_type)
            if qualified_name(layer_type) in RMS_NORMS
            else None
        )

    def channels(self, layer: nn.Module, is_input: bool) -> int:
        """Number of features, the last dimension."""
        return layer.weight.shape[0]

    def channels_first(self, layer: nn.Module) -> bool:
        """[..., C]."""
        return False

    def keep(self, layer: nn.Module, kept: Tensor) -> None:
        """Nothing besides its vector."""
