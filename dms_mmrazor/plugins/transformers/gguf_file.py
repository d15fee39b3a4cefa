"""A found language model as a GGUF file, which llama.cpp runs.

Numbers of heads and hidden widths are arrays with one entry for each layer
where layers differ. Of llama.cpp's Llamas ``deci`` is the one that reads
them so (``llama`` takes the heads of the first layer for those of all);
``llama`` is written where all layers are alike.

Rotary position embeddings turn pairs of channels. Transformers pairs channel
i of a head with i + d/2, both kinds of Llama in llama.cpp pair 2i with
2i + 1, so that the outputs of their queries and keys are written in the order
0, d/2, 1, d/2 + 1, … Qwen is read as it is.
"""

import importlib
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

import numpy as np
import torch
from torch import Tensor, nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.decoders import (
    SIZES,
    decoders,
    layer_sizes,
)
from dms_mmrazor.plugins.transformers.folder import language_model
from dms_mmrazor.plugins.transformers.gguf_vocabulary import (
    read_vocabulary,
    write_vocabulary,
)
from dms_mmrazor.plugins.transformers.loading import (
    has_lora,
    has_tokenizer,
    load_model,
)


class Architecture(NamedTuple):
    """How llama.cpp knows a model.

    Attributes:
        alike (str): Its architecture for layers that are alike.
        different (str): For layers that differ; '': there is none.
        paired (bool): Whether channels of queries and keys are reordered.
    """

    alike: str
    different: str
    paired: bool


ARCHITECTURES = {
    'llama': Architecture('llama', 'deci', True),
    'mistral': Architecture('llama', 'deci', True),
    'qwen2': Architecture('qwen2', '', False),
    'qwen3': Architecture('qwen3', '', False),
}
"""By ``model_type``."""


def save_gguf(
    model: nn.Module,
    path: str,
    tokenizer: Optional[str] = None,
    pre_tokenizer: Optional[str] = None,
) -> List[str]:
    """Write a found language model as a GGUF file, not quantized.

    Args:
        model (nn.Module): As of :func:`save_folder`.
        path (str): The file.
        tokenizer (str, optional): Folder of its tokenizer, byte pairs in
            ``tokenizer.json``. Defaults to None: the file has none, and
            reads token ids alone.
        pre_tokenizer (str, optional): llama.cpp's name for how the
            tokenizer splits a text, such as 'llama-bpe'. Defaults to None:
            'gpt-2' or 'smollm', if the tokenizer splits so.

    Returns:
        list[str]: Names of the written tensors.

    Raises:
        DMSError: If the package gguf is missing, or llama.cpp has nothing
            for such a model or tokenizer.
    """
    gguf = _import_gguf()
    inner = language_model(model)
    if has_lora(inner):
        raise DMSError('the model has LoRA adapters: `merge_lora` it first.')
    ((_, decoder),) = decoders(inner)
    sizes = layer_sizes(decoder)
    kind, name = _architecture(inner.config, sizes)
    words = read_vocabulary(tokenizer, pre_tokenizer, inner.config.vocab_size)
    writer = gguf.GGUFWriter(path, name)
    _write_sizes(writer, inner.config, sizes)
    write_vocabulary(gguf, writer, words)
    tensors = _tensors(gguf, inner, name, kind.paired, sizes)
    _write_tensors(gguf, writer, tensors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return list(tensors)


def folder_to_gguf(
    folder: str,
    path: str,
    tokenizer: bool = True,
    pre_tokenizer: Optional[str] = None,
) -> List[str]:
    """Write the model of a folder, found or not, as a GGUF file.

    Args:
        folder (str): As :func:`save_folder` writes it.
        path (str): The file.
        tokenizer (bool): With the folder's tokenizer, if it has one.
            Defaults to True.
        pre_tokenizer (str, optional): See :func:`save_gguf`.

    Returns:
        list[str]: Names of the written tensors.

    Raises:
        DMSError: As :func:`save_gguf`, or if the folder cannot be loaded.
    """
    words = folder if tokenizer and has_tokenizer(folder) else None
    return save_gguf(load_model(folder), path, words, pre_tokenizer)


def _import_gguf() -> Any:
    """The package; a DMSError says how to get it."""
    try:
        return importlib.import_module('gguf')
    except ImportError:
        raise DMSError(
            'GGUF files need the package gguf: install '
            '`dms_mmrazor[llama,gguf]`.'
        ) from None


def _architecture(config: Any, sizes: Sequence[Mapping[str, int]]) -> Any:
    """The entry of :data:`ARCHITECTURES` and its name for these layers."""
    kind = ARCHITECTURES[config.model_type]
    name = kind.alike if all(s == sizes[0] for s in sizes) else kind.different
    if not name:
        raise DMSError(
            f'GGUF: llama.cpp reads a {config.model_type} only where all '
            'layers are alike; write a folder of transformers.'
        )
    scaling = getattr(config, 'rope_scaling', None)
    if scaling:
        raise DMSError(
            f'GGUF: `rope_scaling={scaling}` is not written; convert the '
            "folder by llama.cpp's own script if all layers are alike."
        )
    return kind, name


def _write_sizes(
    writer: Any, config: Any, sizes: Sequence[Mapping[str, int]]
) -> None:
    """What is not a tensor, sizes of layers above all."""
    heads, groups, hidden = (
        _one_or_all([size[key] for size in sizes]) for key in SIZES
    )
    context = config.max_position_embeddings
    window = getattr(config, 'sliding_window', None)
    writer.add_context_length(min(context, window or context))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(len(sizes))
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _one_or_all(numbers: List[int]) -> Any:
    """One number where all layers have it."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _tensors(
    gguf: Any,
    model: nn.Module,
    architecture: str,
    paired: bool,
    sizes: Sequence[Mapping[str, int]],
) -> Dict[str, Tensor]:
    """Weights by their names in the file; tied ones once."""
    number = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(number, len(sizes))
    tensors: Dict[str, Tensor] = {}
    for key, parameter in model.named_parameters():
        value, part = parameter.detach().cpu(), key.split('.')[-2]
        if paired and part in ('q_proj', 'k_proj'):
            layer = sizes[int(key.split('layers.')[1].split('.')[0])]
            heads = layer[SIZES[0] if part == 'q_proj' else SIZES[1]]
            value = as_pairs(value, heads)
        name = names.get_name(key, try_suffixes=('.weight', '.bias'))
        if name is None:
            raise DMSError(
                f'GGUF: {architecture} has nothing for the parameter {key!r}.'
            )
        tensors[name] = value
    return tensors


def as_pairs(weight: Tensor, heads: int) -> Tensor:
    """Outputs of queries or keys in llama.cpp's order.

    Args:
        weight (Tensor): [heads · d, …]: d/2 channels of each head, then
            those that they are turned with.
        heads (int): Number of heads.

    Returns:
        Tensor: The same shape, each channel beside its other.
    """
    halves = weight.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).flatten(0, 2).contiguous()


def _write_tensors(
    gguf: Any, writer: Any, tensors: Mapping[str, Tensor]
) -> None:
    """Matrices in their own type, vectors in single precision."""
    types = gguf.GGMLQuantizationType
    files = {
        torch.float32: gguf.LlamaFileType.ALL_F32,
        torch.float16: gguf.LlamaFileType.MOSTLY_F16,
        torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16,
    }
    first = next(iter(tensors.values()))
    writer.add_file_type(files[first.dtype])
    for name, tensor in tensors.items():
        if tensor.dim() > 1 and tensor.dtype == torch.bfloat16:
            # numpy has no such type.
            data = tensor.view(torch.uint16).numpy().view(np.uint8)
            writer.add_tensor(name, data, raw_dtype=types.BF16)
        else:
            value = tensor.float() if tensor.dim() < 2 else tensor
            writer.add_tensor(name, value.numpy())
