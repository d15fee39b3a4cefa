"""Published weights of OFA and AutoFormer, for the plain supernets.

Both repositories keep the weights of their largest network in layers of
their own. Keys are renamed here, and tensors cut to the first channels that
a supernet has. What cannot be placed is an error.

Sources of the names: once-for-all's ``ofa_mbv3.py`` and ``dynamic_op.py``,
AutoFormer's ``supernet_transformer.py`` and ``qkv_super.py``.
"""

import re
from typing import Callable, Dict, List, Mapping, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dms_mmrazor.errors import DMSError

State = Mapping[str, Tensor]

_WRAPPED = ('state_dict', 'model', 'state_dict_ema')

_OFA: Tuple[Tuple[str, str], ...] = (
    (r'first_conv\.', 'backbone.conv1.'),
    (r'final_expand_layer\.', 'backbone.conv2.'),
    (r'feature_mix_layer\.conv\.', 'head.layers.0.fc.'),
    (r'classifier\.linear\.', 'head.layers.1.fc.'),
    (r'blocks\.0\.conv\.', 'backbone.first.'),
    (r'inverted_bottleneck\.', 'expand_conv.'),
    (r'depth_conv\.se\.fc\.reduce\.', 'se.conv1.conv.'),
    (r'depth_conv\.se\.fc\.expand\.', 'se.conv2.conv.'),
    (r'depth_conv\.', 'depthwise_conv.'),
    (r'point_linear\.', 'linear_conv.'),
)

_AUTOFORMER: Tuple[Tuple[str, str], ...] = (
    (r'^patch_embed_super\.(cls_token|pos_embed)$', r'backbone.\1'),
    (r'^(cls_token|pos_embed)$', r'backbone.\1'),
    (r'^patch_embed_super\.proj\.', 'backbone.patch_embed.projection.'),
    (r'^norm\.', 'backbone.ln1.'),
    (r'^head\.', 'head.fc.'),
    (r'^blocks\.(\d+)\.attn_layer_norm\.', r'backbone.layers.\1.ln1.'),
    (r'^blocks\.(\d+)\.ffn_layer_norm\.', r'backbone.layers.\1.ln2.'),
    (r'^blocks\.(\d+)\.fc1\.', r'backbone.layers.\1.ffn.layers.0.0.'),
    (r'^blocks\.(\d+)\.fc2\.', r'backbone.layers.\1.ffn.layers.1.'),
    (r'^blocks\.(\d+)\.attn\.', r'backbone.layers.\1.attn.'),
)


def from_ofa(state: State, wanted: State, depth: int = 4) -> Dict[str, Tensor]:
    """Weights of a published OFA MobileNetV3 supernet.

    Kernels smaller than the trained ones are made by OFA's own matrices.
    The first layer of our classifier has a bias, which OFA's has not: 0.

    Args:
        state (Mapping[str, Tensor]): The checkpoint, or its state dict.
        wanted (Mapping[str, Tensor]): State dict of the plain supernet, an
            ImageClassifier with :class:`OFAMobileNetV3`.
        depth (int): Blocks of a stage of the published network. Defaults to
            4.

    Returns:
        dict[str, Tensor]: A state dict for the supernet.

    Raises:
        DMSError: If a tensor is missing, left over or does not fit.
    """
    state = _unwrapped(state)
    matrices: Dict[str, Dict[int, Tensor]] = {}
    renamed: Dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.replace('.mobile_inverted_conv.', '.conv.')
        match = re.fullmatch(r'(.*)\.conv\.(\d)to(\d)_matrix', name)
        if match:
            owner = _ofa_name(f'{match.group(1)}.conv.weight', depth)
            matrices.setdefault(owner, {})[int(match.group(3))] = value
            continue
        renamed[_ofa_name(name, depth)] = value
    for name, value in wanted.items():
        if name == 'head.layers.0.fc.bias':
            renamed.setdefault(name, torch.zeros_like(value))
        if name == 'head.layers.0.fc.weight' and name in renamed:
            renamed[name] = renamed[name].flatten(1)
        if name.endswith('depthwise_conv.conv.weight') and name in renamed:
            renamed[name] = _kernel(
                renamed[name], value.shape[-1], matrices.get(name, {})
            )
    return _cut(renamed, wanted, 'OFA')


def from_autoformer(state: State, wanted: State) -> Dict[str, Tensor]:
    """Weights of a published AutoFormer supernet.

    Rows of its ``qkv`` weight alternate between q, k and v; here those of
    each follow each other. Its bias is not interleaved: with fewer heads
    than all, AutoFormer reads other parts of it as q, k and v. The largest
    number of heads is what is reproduced here.

    Args:
        state (Mapping[str, Tensor]): The checkpoint, or its state dict.
        wanted (Mapping[str, Tensor]): State dict of the plain supernet, an
            ImageClassifier with :class:`PlainAutoFormer`.

    Returns:
        dict[str, Tensor]: A state dict for the supernet.

    Raises:
        DMSError: If a tensor is missing, left over or does not fit.
    """
    renamed: Dict[str, Tensor] = {}
    for key, value in _unwrapped(state).items():
        name = _renamed(key, _AUTOFORMER)
        if name.endswith('attn.qkv.weight'):
            value = torch.cat([value[part::3] for part in range(3)])
            _check_heads(name, value, wanted)
        renamed[name] = value
    return _cut(renamed, wanted, 'AutoFormer')


LOADERS: Dict[str, Callable[[State, State], Dict[str, Tensor]]] = {
    'ofa': from_ofa,
    'autoformer': from_autoformer,
}
"""By the name of the space."""


def _unwrapped(state: State) -> State:
    for key in _WRAPPED:
        inner = state.get(key)
        if isinstance(inner, Mapping):
            return inner
    return state


def _renamed(key: str, rules: Tuple[Tuple[str, str], ...]) -> str:
    for pattern, name in rules:
        key, count = re.subn(pattern, name, key)
        if count:
            return key
    return key


def _ofa_name(key: str, depth: int) -> str:
    """Name of a tensor of OFA in the plain supernet."""
    # Layers that can be narrowed wrap a plain one of the same name.
    for part in ('conv', 'bn', 'linear'):
        key = key.replace(f'.{part}.{part}.', f'.{part}.')
    match = re.match(r'blocks\.(\d+)\.conv\.', key)
    if match and int(match.group(1)):
        stage, index = divmod(int(match.group(1)) - 1, depth)
        place = f'backbone.stages.{stage}.{index}.'
        key = place + key[match.end() :]
    for pattern, name in _OFA:
        key = re.sub(f'(^|(?<=\\.)){pattern}', name, key)
    return key


def _kernel(weight: Tensor, size: int, matrices: Dict[int, Tensor]) -> Tensor:
    """A depthwise kernel [C, 1, k, k] made smaller as OFA does.

    The middle of the larger kernel, flattened, times the matrix of the
    smaller size; from 7 to 5, and from 5 to 3.
    """
    while weight.shape[-1] > size:
        smaller = weight.shape[-1] - 2
        middle = weight[:, :, 1:-1, 1:-1].flatten(2)
        if smaller in matrices:
            middle = F.linear(middle, matrices[smaller])
        weight = middle.unflatten(2, (smaller, smaller))
    return weight


def _cut(
    found: Dict[str, Tensor], wanted: State, source: str
) -> Dict[str, Tensor]:
    """The first channels of every tensor that a supernet wants."""
    result: Dict[str, Tensor] = {}
    for name, like in wanted.items():
        value = _matching(found.get(name), like)
        if value is None:
            shape = list(found[name].shape) if name in found else 'nothing'
            raise DMSError(
                f'the checkpoint of {source} has {shape} for {name}, which '
                f'is {list(like.shape)} in the supernet: it is of another '
                'network.'
            )
        result[name] = value
    left: List[str] = sorted(set(found) - set(wanted))
    if left:
        raise DMSError(
            f'the checkpoint of {source} has {left[0]} and {len(left) - 1} '
            'more tensors that the supernet has no place for: it is of '
            'another network.'
        )
    return result


def _check_heads(name: str, value: Tensor, wanted: State) -> None:
    """q, k and v follow each other: their heads cannot be cut here.

    Raises:
        DMSError: If the supernet has other heads.
    """
    like = wanted.get(name)
    if like is not None and len(like) != len(value):
        raise DMSError(
            f'{name}: the checkpoint of AutoFormer has {len(value) // 3} dims '
            f'of heads, the supernet {len(like) // 3}: set its `num_heads` '
            'to that of the checkpoint.'
        )


def _matching(value: Optional[Tensor], like: Tensor) -> Optional[Tensor]:
    """The first part of a tensor in the shape of another, if it can be."""
    if value is None or value.dim() != like.dim():
        return None
    if any(size < new for size, new in zip(value.shape, like.shape)):
        return None
    for dim, size in enumerate(like.shape):
        value = value.narrow(dim, 0, size)
    return value.clone()
