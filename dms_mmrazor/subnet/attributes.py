"""Numbers that a model's code keeps beside its layers."""

from torch import nn

from dms_mmrazor.layers.csp_layers import is_split_layer, refresh_split
from dms_mmrazor.layers.decoders import refresh_decoders
from dms_mmrazor.layers.known_types import (
    SWIN,
    TIMM_SCALE,
    TORCHVISION_VIT,
    is_kind,
)
from dms_mmrazor.layers.multihead import SlimMultiheadAttention


def refresh_attributes(model: nn.Module) -> None:
    """Let numbers that forward passes read follow the narrowed layers.

    Args:
        model (nn.Module): A plain model; it is changed in place.
    """
    for module in model.modules():
        if is_kind(module, SWIN):
            _refresh_swin(module)
        elif is_kind(module, TIMM_SCALE):
            module.shape = (len(module.scale), *module.shape[1:])
        elif is_kind(module, TORCHVISION_VIT):
            module.hidden_dim = module.conv_proj.out_channels
        elif is_split_layer(module):
            refresh_split(module)
        elif isinstance(module, nn.Embedding):
            module.embedding_dim = module.weight.shape[1]
        elif isinstance(module, nn.Transformer):
            _refresh_transformer(module)
        elif isinstance(module, nn.TransformerEncoder):
            # Nested tensors are for kernels that need a stock attention.
            kinds = {type(part) for part in module.modules()}
            if SlimMultiheadAttention in kinds:
                module.use_nested_tensor = False
    refresh_decoders(model)


def _refresh_transformer(module: nn.Transformer) -> None:
    """Width that torch's transformer checks its inputs for."""
    norm = getattr(module.encoder, 'norm', None)
    if isinstance(norm, nn.LayerNorm):
        module.d_model = norm.normalized_shape[0]


def _refresh_swin(module: nn.Module) -> None:
    """Widths of the feature maps that a Swin transformer hands out."""
    numbers = list(module.num_features)
    for index in module.out_indices:
        norm = getattr(module, f'norm{index}')
        if isinstance(norm, nn.LayerNorm):
            numbers[index] = norm.normalized_shape[0]
    module.num_features = numbers
