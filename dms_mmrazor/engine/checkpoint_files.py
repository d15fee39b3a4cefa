"""Checkpoint files: found, read and compared before anything starts."""

import os.path as osp
import pickle
import re
import zipfile
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from mmengine.config import Config
from torch import Tensor, nn

from dms_mmrazor.compat import load_safely
from dms_mmrazor.errors import DMSError, raise_device_error

_FOREIGN = re.compile(r'(?:GLOBAL|it contains) ([\w.]+)')


def read_checkpoint(path: str) -> Dict[str, Any]:
    """Load a whole checkpoint to the CPU, without running code from it.

    Args:
        path (str): A local file.

    Returns:
        dict[str, Any]: Its content.

    Raises:
        DMSError: If the file is missing, damaged, not a checkpoint, or
            contains something else than data.
    """
    path = osp.expanduser(path)
    _check_file(path)
    try:
        content = load_safely(path)
    except pickle.UnpicklingError as error:
        found = _FOREIGN.search(str(error))
        what = found.group(1) if found else 'code or broken data'
        raise DMSError(
            f'checkpoint {path} is not loaded: it contains {what}, which is '
            'neither a tensor nor plain data.'
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        raise_device_error(error)
        raise DMSError(_damaged(path, error)) from None
    if not isinstance(content, dict):
        raise DMSError(
            f'checkpoint {path} holds a {type(content).__name__}, not a dict.'
        )
    return content


def _check_file(path: str) -> None:
    """Raise unless the file exists and its bytes are what was written."""
    if not osp.isfile(path):
        raise DMSError(f'checkpoint {path} does not exist.')
    with open(path, 'rb') as file:
        is_zip = file.read(2) == b'PK'
    if not is_zip:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise DMSError(_damaged(path, error)) from None
    if broken:
        raise DMSError(_damaged(path, f'{broken} has a wrong checksum'))


def _damaged(path: str, reason: Any) -> str:
    size = osp.getsize(path)
    line = ' '.join(str(reason).split())[:200]
    return (
        f'checkpoint {path} cannot be read ({size:,} bytes): it is truncated, '
        f'damaged or no checkpoint ({line or type(reason).__name__}).'
    )


def state_dict_of(checkpoint: Mapping[str, Any], path: str) -> Dict[str, Any]:
    """Weights in a checkpoint: its 'state_dict', or all of it.

    Args:
        checkpoint (Mapping[str, Any]): As :func:`read_checkpoint` returns.
        path (str): Its file, for the message.

    Raises:
        DMSError: If there are no weights.
    """
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, dict) or not any(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise DMSError(f'checkpoint {path} contains no weights.')
    return state


def check_fits(
    model: nn.Module, state: Mapping[str, Tensor], path: str
) -> None:
    """Raise unless a checkpoint has every weight of a model.

    mmengine only warns then, and goes on with random weights.

    Args:
        model (nn.Module): The model that will load it.
        state (Mapping[str, Tensor]): Weights by name.
        path (str): The file, for the message.

    Raises:
        DMSError: It names the first weight that is missing or has another
            shape.
    """
    wrong = _misfits(model.state_dict(), state)
    if wrong:
        more = f' (and {len(wrong) - 1} more)' if len(wrong) > 1 else ''
        raise DMSError(
            f'checkpoint {path} belongs to another model than the config: '
            f'{wrong[0]}{more}.'
        )


def _misfits(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> List[str]:
    """What is missing in a state dict or has another shape."""
    found = []
    for name, value in wanted.items():
        other = state.get(name, state.get(f'module.{name}'))
        if not isinstance(other, Tensor):
            found.append(f'it has no {name!r}')
        elif other.shape != value.shape:
            shapes = f'{list(other.shape)} instead of {list(value.shape)}'
            found.append(f'{name!r} has shape {shapes}')
    return found


def check_config_checkpoints(
    cfg: Config,
) -> Optional[Tuple[Dict[str, Any], str]]:
    """Read every local checkpoint of a config before anything starts.

    Args:
        cfg (Config): Config of a training. With ``resume`` it names the
            checkpoint in ``load_from``.

    Returns:
        tuple | None: Weights and path of the checkpoint to resume from,
        for :func:`check_fits`.

    Raises:
        DMSError: If one cannot be read, or has nothing to resume from.
    """
    found = None
    named = [cfg.get('load_from'), *_pretrained(cfg.get('model'))]
    for index, path in enumerate(dict.fromkeys(named)):
        if not path or '://' in path:
            continue
        checkpoint = read_checkpoint(path)
        state = state_dict_of(checkpoint, path)
        if index or not cfg.get('resume'):
            continue
        if 'iter' not in checkpoint.get('meta', {}):
            raise DMSError(
                f'checkpoint {path} has only weights, no state of a training '
                'to resume: use `load_from` for it.'
            )
        found = state, path
    return found


def _pretrained(cfg: Any) -> Iterator[str]:
    """Checkpoints that the ``init_cfg`` of a model or its parts name."""
    if isinstance(cfg, dict):
        if cfg.get('type') == 'Pretrained' and cfg.get('checkpoint'):
            yield str(cfg['checkpoint'])
        cfg = list(cfg.values())
    if isinstance(cfg, (list, tuple)):
        for part in cfg:
            yield from _pretrained(part)
