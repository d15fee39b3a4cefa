"""A found language model as a folder that transformers loads."""

import importlib
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Union

import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.decoders import (
    PRETRAINED,
    SIZES,
    decoders,
    is_one_of,
    layer_sizes,
)
from dms_mmrazor.subnet import Structure, load_structure, prune

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
    kind = type(inner)
    own = getattr(inner.config, 'per_layer_config', None)
    described = dict(inner.config.__dict__)
    try:
        if own:
            inner.__class__ = _per_layer_class(kind.__name__)
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


def _per_layer_class(name: str) -> type:
    """The class that builds each layer in its own size.

    Args:
        name (str): Of the class of transformers, or of it itself.
    """
    module = importlib.import_module(
        'dms_mmrazor.plugins.transformers.modeling_dms'
    )
    found = getattr(module, name if name[:3] == 'DMS' else f'DMS{name}', None)
    if found is None:
        raise DMSError(
            f'{name} cannot have sizes of its own for each layer; '
            'the For…CausalLM classes of Llama, Mistral, Qwen2 and Qwen3 '
            'can.'
        )
    return found


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
        f'- {kind}: {row["subnet"]:,} of {row["supernet"]:,} '
        f'({row["ratio"]:.1%})'
        for kind, row in resources.items()
    ]
    return '\n'.join([*lines, '', '']) if lines else ''


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
            finetuning. Defaults to None: the supernet's own weights, cut.
        dtype (str, optional): 'float32', 'bfloat16' or 'float16'. Defaults
            to None, the folder's.

    Returns:
        dict: ``params``, and names of the written ``files``.

    Raises:
        DMSError: If a file is missing or does not fit.
    """
    transformers = import_transformers()
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
        _load_weights(model, weights)
    tokenizer = None
    names = ('tokenizer.json', 'tokenizer.model', 'vocab.json')
    if any(os.path.isfile(os.path.join(supernet, name)) for name in names):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            supernet, local_files_only=True
        )
    source = os.path.basename(os.path.normpath(supernet))
    files = save_folder(model, folder, tokenizer, found, source)
    return dict(params=sum(p.numel() for p in model.parameters()), files=files)


def import_transformers() -> Any:
    """The package; a DMSError says how to get it."""
    try:
        return importlib.import_module('transformers')
    except ImportError:
        raise DMSError(
            'language models need the package transformers: install '
            '`dms_mmrazor[llama]`.'
        ) from None


def load_model(
    folder: str, dtype: Optional[str] = None, attention: Optional[str] = None
) -> nn.Module:
    """A causal language model from a local folder; no network is asked.

    Args:
        folder (str): With ``config.json`` and weights.
        dtype (str, optional): 'float32', 'bfloat16' or 'float16'. Defaults
            to None, as the folder says.
        attention (str, optional): 'sdpa', 'eager', … Defaults to None.

    Raises:
        DMSError: If there is no such folder, or the type is unknown.
    """
    transformers = import_transformers()
    if not os.path.isfile(os.path.join(folder, 'config.json')):
        raise DMSError(
            f'{folder!r} is no folder of a language model: it has no '
            '`config.json`. Nothing is downloaded; give a local path.'
        )
    settings: Dict[str, Any] = {'dtype': as_dtype(dtype)}
    if attention is not None:
        settings['attn_implementation'] = attention
    # A found folder brings code of its own; ours is the same, and trusted.
    kind = _own_class(folder) or transformers.AutoModelForCausalLM
    return kind.from_pretrained(folder, local_files_only=True, **settings)


def _own_class(folder: str) -> Optional[type]:
    """Our class of a folder whose layers differ in size; None elsewhere.

    Raises:
        DMSError: If there is none for its kind of model.
    """
    path = os.path.join(folder, 'config.json')
    with open(path, encoding='utf-8') as file:
        config = json.load(file)
    if not config.get('per_layer_config'):
        return None
    names = config.get('architectures') or ['a model without `architectures`']
    return _per_layer_class(names[0])


def as_dtype(name: Optional[str]) -> Union[torch.dtype, str]:
    """A type by its name; 'auto' without one.

    Raises:
        DMSError: If it is none of the three.
    """
    if name is None:
        return 'auto'
    if name not in ('float32', 'bfloat16', 'float16'):
        raise DMSError(
            f'`dtype` must be float32, bfloat16 or float16, got {name!r}.'
        )
    return getattr(torch, name)


def _load_weights(model: nn.Module, path: str) -> None:
    """Load ``subnet.pth`` or a checkpoint of mmengine."""
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except OSError as error:
        raise DMSError(f'weights {path!r} cannot be read: {error}.') from None
    state = checkpoint.get('state_dict', checkpoint)
    prefixes = ('architecture.lm.', 'lm.', 'model.lm.')
    for prefix in prefixes:
        if any(key.startswith(prefix) for key in state):
            state = {
                key[len(prefix) :]: value
                for key, value in state.items()
                if key.startswith(prefix)
            }
            break
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()
        raise DMSError(
            f'weights {path!r} are of another structure: {line}'
        ) from None
    tied = set(getattr(model, '_tied_weights_keys', None) or ())
    missing = [key for key in missing if key not in tied]
    if missing or unknown:
        names = [*missing, *unknown]
        raise DMSError(
            f'weights {path!r} do not fit: {names[0]!r} is '
            f'{"missing" if missing else "unknown"} ({len(names)} in all).'
        )
    model.tie_weights()
