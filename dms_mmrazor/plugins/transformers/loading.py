"""Language models, tokenizers and weights from local files."""

import importlib
import json
import os
import pickle
from typing import Any, Dict, Optional, Type, Union

import torch
from torch import Tensor, nn

from dms_mmrazor.compat import load_safely
from dms_mmrazor.errors import DMSError, raise_device_error

LORA_SCALE = 'lora_scale'
"""Buffer of a model with adapters: what these are multiplied by."""


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
        DMSError: If there is no such folder, it lacks weights, or the type
            is unknown.
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
    try:
        model, found = kind.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            **settings,
        )
    except (OSError, ValueError, _safetensor_error()) as error:
        line = str(error).splitlines()[0]
        raise DMSError(f'{folder!r} cannot be loaded: {line}') from None
    if found['missing_keys']:
        raise DMSError(
            f'{folder!r} lacks weights, {sorted(found["missing_keys"])[0]!r} '
            f'({len(found["missing_keys"])} in all): it is no whole model.'
        )
    return model


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
    return per_layer_class(names[0])


def has_tokenizer(folder: str) -> bool:
    """Whether a folder has the files of a tokenizer."""
    names = ('tokenizer.json', 'tokenizer.model', 'vocab.json')
    return any(os.path.isfile(os.path.join(folder, name)) for name in names)


def load_tokenizer(folder: str, key: str = 'tokenizer') -> Any:
    """The tokenizer of a local folder; no network is asked.

    Args:
        folder (str): Such as that of its model.
        key (str): Where it is named, for messages. Defaults to 'tokenizer'.

    Raises:
        DMSError: If there is none.
    """
    if not has_tokenizer(folder):
        what = 'has no tokenizer.json' if os.path.isdir(folder) else ''
        raise DMSError(
            f'`{key}`: {folder!r} {what or "is no folder"}; give the local '
            'folder of a tokenizer, nothing is downloaded.'
        )
    try:
        return import_transformers().AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    except (OSError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise DMSError(f'`{key}` {folder!r} cannot be read: {line}') from None


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


def _read_weights(path: str) -> Dict[str, Any]:
    """Weights by name, without running code from the file."""
    if os.path.isdir(path):
        raise DMSError(
            f'weights {path!r} is a folder: name a file in it, such as '
            'model.safetensors.'
        )
    if not path.endswith('.safetensors'):
        return _read_checkpoint(path)
    # It comes with transformers, which is not needed by everybody.
    safetensors = importlib.import_module('safetensors.torch')
    try:
        return safetensors.load_file(path)
    except (OSError, _safetensor_error()) as error:
        raise DMSError(f'weights {path!r} cannot be read: {error}.') from None


def _read_checkpoint(path: str) -> Dict[str, Any]:
    """Weights of ``subnet.pth`` or of a checkpoint of mmengine."""
    if not os.path.isfile(path):
        raise DMSError(f'weights {path!r}: the file does not exist.')
    try:
        content = load_safely(path)
    except pickle.UnpicklingError:
        raise DMSError(
            f'weights {path!r} are not loaded: the file contains what is '
            'neither a tensor nor plain data, such as a whole model; save '
            'its `state_dict()`.'
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise_device_error(error)
        line = ' '.join(str(error).split())[:200]
        raise DMSError(f'weights {path!r} cannot be read: {line}') from None
    state = content
    if isinstance(content, dict):
        state = content.get('state_dict', content)
    if not isinstance(state, dict) or not state:
        raise DMSError(f'weights {path!r}: the file contains no weights.')
    return state


def _safetensor_error() -> Type[Exception]:
    return importlib.import_module('safetensors').SafetensorError


def has_lora(model: nn.Module) -> bool:
    """Whether a model of transformers has adapters that are not merged."""
    return any(hasattr(module, 'lora_A') for module in model.modules())


def _merged(state: Dict[str, Tensor], path: str) -> Dict[str, Tensor]:
    """Plain weights out of those of a model with adapters.

    Raises:
        DMSError: If the file does not say what the adapters are worth.
    """
    first = [key for key in state if '.lora_A.' in key]
    if not first:
        return state
    if LORA_SCALE not in state:
        raise DMSError(
            f'weights {path!r} have adapters without `{LORA_SCALE}`: merge '
            'them by the program that has made them.'
        )
    merged = {
        key.replace('.base_layer.', '.'): value
        for key, value in state.items()
        if '.lora_' not in key and key != LORA_SCALE
    }
    for key in first:
        name = key.split('.lora_A.')[0] + '.weight'
        added = state[key.replace('.lora_A.', '.lora_B.')] @ state[key]
        weight = merged[name] + added * state[LORA_SCALE]
        merged[name] = weight.to(merged[name].dtype)
    return merged


def load_weights(model: nn.Module, path: str) -> None:
    """Load ``subnet.pth``, a checkpoint of mmengine, or safetensors.

    Adapters of :func:`add_lora` are merged.
    """
    state = _read_weights(path)
    prefixes = ('architecture.lm.', 'lm.', 'model.lm.')
    for prefix in prefixes:
        if any(key.startswith(prefix) for key in state):
            state = {
                key[len(prefix) :]: value
                for key, value in state.items()
                if key.startswith(prefix)
            }
            break
    state = _merged(state, path)
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise_device_error(error)
        line = str(error).splitlines()[-1].strip()
        raise DMSError(
            f'weights {path!r} are of another structure: {line}'
        ) from None
    tied = set()
    if model.config.tie_word_embeddings:
        tied = set(getattr(model, '_tied_weights_keys', None) or ())
    missing = [key for key in missing if key not in tied]
    if missing or unknown:
        names = [*missing, *unknown]
        raise DMSError(
            f'weights {path!r} do not fit: {names[0]!r} is '
            f'{"missing" if missing else "unknown"} ({len(names)} in all).'
        )
    model.tie_weights()


def per_layer_class(name: str) -> type:
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
