"""A found language model as a folder that transformers loads."""

import os
from typing import Any, Dict, List, Mapping, Optional, Union

from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.decoders import (
    PRETRAINED,
    SIZES,
    decoders,
    is_one_of,
    layer_sizes,
)
from dms_mmrazor.plugins.transformers.loading import (
    has_lora,
    has_tokenizer,
    load_model,
    load_tokenizer,
    load_weights,
    per_layer_class,
)
from dms_mmrazor.subnet import Structure, load_structure, prune
from dms_mmrazor.supernet.resources import RESOURCES

_CARD = """---
library_name: transformers
tags: [pruned, dms]
---

# {name}

{params:,} parameters in {layers} layers; found by Differentiable Model
Scaling (dms_mmrazor).{source}

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained('{folder}'{remote})
```

{resources}| layer | query heads | key/value heads | FFN |
|---|---|---|---|
{rows}
"""


def language_model(model: nn.Module) -> nn.Module:
    """The model of transformers that a model is, or has as ``lm``.

    Args:
        model (nn.Module): Such a model, or :class:`CausalLM` around it.

    Raises:
        DMSError: If there is none with known layers.
    """
    inner = getattr(model, 'lm', model)
    if not is_one_of(inner, (PRETRAINED,)) or not list(decoders(inner)):
        raise DMSError(
            f'a {type(model).__name__} is no language model of transformers '
            'with known layers (Llama, Mistral, Qwen2, Qwen3).'
        )
    return inner


def save_folder(
    model: nn.Module,
    folder: str,
    tokenizer: Any = None,
    structure: Optional[Structure] = None,
    source: str = '',
) -> List[str]:
    """Write a found language model as a Hugging Face folder.

    Where all layers are alike it is a plain folder; else it brings
    ``modeling_dms.py`` and is loaded with ``trust_remote_code=True``.

    Args:
        model (nn.Module): What :meth:`Search.export` or
            :func:`apply_structure` has given.
        folder (str): Where to; it is made if missing.
        tokenizer (optional): Of transformers, written beside it. Defaults
            to None.
        structure (Structure, optional): What was found, for the model card.
            Defaults to None.
        source (str): Of which model it is a part, for the card. Defaults to
            ''.

    Returns:
        list[str]: Names of the written files.

    Raises:
        DMSError: If it is no such model, or its class has no counterpart
            with sizes of its own for each layer.
    """
    inner = language_model(model)
    if has_lora(inner):
        raise DMSError(
            'the model has LoRA adapters: call `merge_lora(model)` before it '
            'is written.'
        )
    kind = type(inner)
    own = getattr(inner.config, 'per_layer_config', None)
    described = dict(inner.config.__dict__)
    try:
        if own:
            inner.__class__ = per_layer_class(kind.__name__)
        inner.save_pretrained(folder)
    finally:
        inner.__class__ = kind
        # Writing such a folder notes its class down.
        inner.config.__dict__.clear()
        inner.config.__dict__.update(described)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    card = _card(inner, folder, structure, source)
    path = os.path.join(folder, 'README.md')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(card)
    return sorted(os.listdir(folder))


def _card(
    model: nn.Module,
    folder: str,
    structure: Optional[Structure],
    source: str,
) -> str:
    """Text of the model card."""
    ((_, decoder),) = decoders(model)
    sizes = layer_sizes(decoder)
    rows = [
        ' | '.join([str(index), *(f'{size[key]:,}' for key in SIZES)])
        for index, size in enumerate(sizes)
    ]
    name = os.path.basename(os.path.normpath(folder))
    remote = ''
    if getattr(model.config, 'per_layer_config', None):
        remote = ', trust_remote_code=True'
    return _CARD.format(
        name=name,
        params=sum(p.numel() for p in model.parameters()),
        layers=len(sizes),
        source=f' A part of {source}.' if source else '',
        folder=name,
        remote=remote,
        resources=_resource_lines(structure),
        rows='\n'.join(f'| {row} |' for row in rows),
    )


def _resource_lines(structure: Optional[Structure]) -> str:
    """What the structure file says of resources, as sentences."""
    resources: Mapping[str, Mapping[str, Any]] = (
        structure.resources if structure else {}
    )
    lines = [
        f'- {_named(kind)}: {row["subnet"]:,} of {row["supernet"]:,} '
        f'({row["ratio"]:.1%})'
        + (f', inputs {row["input_size"]}' if 'input_size' in row else '')
        for kind, row in resources.items()
    ]
    return '\n'.join([*lines, '', '']) if lines else ''


def _named(kind: str) -> str:
    """A kind of resource as people call it."""
    return (RESOURCES[kind].label if kind in RESOURCES else '') or kind


def export_folder(
    supernet: str,
    structure: str,
    folder: str,
    weights: Optional[str] = None,
    dtype: Optional[str] = None,
) -> Dict[str, Union[int, List[str]]]:
    """Make a Hugging Face folder from the files of a search.

    Args:
        supernet (str): Folder of the model that was searched.
        structure (str): ``subnet.yaml``.
        folder (str): Where to write.
        weights (str, optional): ``subnet.pth``, or a checkpoint of its
            finetuning, by mmengine or as ``model.safetensors``. Defaults to
            None: the supernet's own weights, cut.
        dtype (str, optional): 'float32', 'bfloat16' or 'float16'. Defaults
            to None, the folder's.

    Returns:
        dict: ``params``, and names of the written ``files``.

    Raises:
        DMSError: If a file is missing or does not fit.
    """
    model = load_model(supernet, dtype)
    found = load_structure(structure)
    # Searched inside of `CausalLM`, names begin with `lm.`.
    holder = nn.Module()
    holder.lm = model
    inside = any(
        part.layer.startswith('lm.')
        for unit in found.units
        for part in unit.outputs
    )
    prune(holder if inside else model, found)
    if weights is not None:
        load_weights(model, weights)
    tokenizer = load_tokenizer(supernet) if has_tokenizer(supernet) else None
    source = os.path.basename(os.path.normpath(supernet))
    files = save_folder(model, folder, tokenizer, found, source)
    return dict(params=sum(p.numel() for p in model.parameters()), files=files)
