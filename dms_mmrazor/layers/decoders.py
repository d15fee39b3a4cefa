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
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from torch import nn

from dms_mmrazor.layers.known_types import decoder_names, is_kind

ATTENTIONS = decoder_names('Attention')
"""Attentions with ``q_proj``, ``k_proj``, ``v_proj`` and ``o_proj``."""

FFNS = decoder_names('MLP')
"""Gated networks: ``down_proj(act(gate_proj(x)) * up_proj(x))``."""

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


def is_decoder_attention(module: object) -> bool:
    """Whether a module is one of :data:`ATTENTIONS`."""
    return any(is_kind(module, name) for name in ATTENTIONS)


def is_decoder_ffn(module: object) -> bool:
    """Whether a module is one of :data:`FFNS`."""
    return any(is_kind(module, name) for name in FFNS)


def grouped_heads(attention: nn.Module) -> GroupedHeads:
    """Heads of an attention, as its layers have them.

    Args:
        attention (nn.Module): One of :data:`ATTENTIONS`.
    """
    dims = attention.head_dim
    groups = attention.k_proj.out_features // dims
    heads = attention.q_proj.out_features // dims
    return GroupedHeads(groups, heads // groups, dims)


def decoder_attention_macs(attention: nn.Module) -> int:
    """MACs of both products for one pair of tokens.

    A causal mask is not taken advantage of: L² pairs for L tokens.
    """
    return 2 * attention.o_proj.in_features


def decoders(model: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    """Stacks of decoder layers in a model, with their names.

    Args:
        model (nn.Module): Any model.

    Yields:
        tuple[str, nn.Module]: Name and module, which has ``embed_tokens``,
        ``layers`` and ``norm``.
    """
    for name, module in model.named_modules():
        layers = getattr(module, 'layers', None)
        if isinstance(layers, nn.ModuleList) and len(layers):
            if is_decoder_attention(getattr(layers[0], 'self_attn', None)):
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


def refresh_decoders(model: nn.Module) -> None:
    """Let numbers beside the layers of decoders follow a cut, in place.

    Their configs are replaced, as other models may have the same ones: what
    all layers share is in the usual keys, what differs in
    ``per_layer_config``, as transformers 5 writes it.

    Args:
        model (nn.Module): A plain model.
    """
    for _, decoder in decoders(model):
        for index, layer in enumerate(decoder.layers):
            layer.self_attn.layer_idx = index
            heads = grouped_heads(layer.self_attn)
            layer.self_attn.num_key_value_groups = heads.queries
        old, new = decoder.config, _config_of(decoder)
        for module in model.modules():
            if getattr(module, 'config', None) is old:
                module.config = new


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


def generates_tokens(model: object) -> bool:
    """Whether it is a causal language model of transformers."""
    return is_kind(model, PRETRAINED) and bool(model.can_generate())


def vocabulary_of(model: object) -> int:
    """Number of tokens that a language model knows; 0 for other models.

    Args:
        model (object): A model of transformers whose input are tokens, or
            one that says so by ``token_vocabulary``.
    """
    if is_kind(model, PRETRAINED):
        if model.main_input_name == 'input_ids':
            return int(model.config.get_text_config().vocab_size)
        return 0
    return int(getattr(model, 'token_vocabulary', 0))
