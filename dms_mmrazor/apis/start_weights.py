"""Weights that a training starts from, compared with what it trains.

mmengine loads what fits and warns of the rest, which is right for a head of
other classes, but a search or a retraining that loads the weights of another
network starts from random ones.
"""

from typing import Any, Iterator, List, Mapping, Tuple

from mmengine.config import Config
from torch import Tensor, nn

from dms_mmrazor.apis.checkpoint_files import read_checkpoint, state_dict_of
from dms_mmrazor.errors import DMSError
from dms_mmrazor.type_names import has_type

State = Mapping[str, Tensor]

_ARCHITECTURE = 'architecture.'


def check_start_weights(model: nn.Module, cfg: Config) -> None:
    """Raise if a search or a retraining would start from foreign weights.

    Args:
        model (nn.Module): What is trained, without wrappers.
        cfg (Config): Its config. What it resumes from is not looked at.

    Raises:
        DMSError: It names the key, the file and what to load instead.
    """
    for key, path in _named(cfg):
        if not path or '://' in path:
            continue
        state = _plain_names(state_dict_of(read_checkpoint(path), path))
        searching = has_type(cfg.model, 'DMSAlgorithm')
        if searching and not _is_search(state):
            raise DMSError(
                f'`{key}`: {path} has the weights of a plain model, and a '
                'search would not find them: give them to `model.'
                "architecture.init_cfg=dict(type='Pretrained', "
                f"checkpoint='{path}')` and remove `{key}`."
            )
        if not searching and _is_search(state):
            raise DMSError(
                f'`{key}`: {path} is a checkpoint of a search, its weights '
                'are those of the supernet: load the `subnet.pth` that lies '
                'beside the structure file, or one that '
                '`tools/export_subnet.py` makes of this checkpoint.'
            )
        wrong = foreign_weights(model.state_dict(), state)
        if wrong:
            raise DMSError(
                f'`{key}`: {path} has the weights of another network: '
                f'{wrong[0]}. {_advice(key, searching)}'
            )


def _advice(key: str, searching: bool) -> str:
    """What to load instead."""
    if searching:
        return f'Load a search of this architecture, or remove `{key}`.'
    return (
        'Load the `subnet.pth` that was written with the file in '
        f'`model.structure`, or remove `{key}` to train from the start.'
    )


def _named(cfg: Config) -> Iterator[Tuple[str, Any]]:
    """Keys of checkpoints that have to fit what is trained."""
    model = cfg.get('model')
    retraining = has_type(model, 'DMSSubModel')
    if not retraining and not has_type(model, 'DMSAlgorithm'):
        return
    if not cfg.get('resume'):
        yield 'load_from', cfg.get('load_from')
    init_cfg = model.get('init_cfg')
    if retraining and has_type(init_cfg, 'Pretrained'):
        # With a prefix it is a part of another model.
        if not init_cfg.get('prefix'):
            yield 'model.init_cfg.checkpoint', init_cfg.get('checkpoint')


def _plain_names(state: State) -> State:
    """Without what a distributed wrapper writes before names."""
    start = len('module.')
    if all(name.startswith('module.') for name in state):
        return {name[start:]: value for name, value in state.items()}
    return state


def _is_search(state: State) -> bool:
    return any(name.startswith(_ARCHITECTURE) for name in state)


def foreign_weights(wanted: State, state: State) -> List[str]:
    """What shows that weights are those of another network.

    Not counted: parts of a model (backbone, head) of which a checkpoint has
    nothing at all, and layers that have another number of outputs alone, as
    a classifier of other classes has. Buffers and biases come and go with
    versions, so names are compared for what is called weight.

    Args:
        wanted (Mapping[str, Tensor]): Weights of the model.
        state (Mapping[str, Tensor]): Weights of the checkpoint.

    Returns:
        list[str]: A line for each weight; empty if it may be the model's.
    """
    wanted, state = _compared(wanted), _compared(state)
    parts = {_part(name) for name in state}
    known = {_part(name) for name in wanted}
    lines = []
    for name, value in wanted.items():
        other = state.get(name)
        if other is None and _part(name) in parts:
            lines.append(f'it has no {name!r}')
        elif other is not None and other.shape[1:] != value.shape[1:]:
            shapes = f'{list(other.shape)} instead of {list(value.shape)}'
            lines.append(f'{name!r} has shape {shapes}')
    for name in state:
        if name not in wanted and _part(name) in known:
            lines.append(f'it has {name!r}, which the model has not')
    return lines if parts & known else ['no name of a weight is the same']


def _compared(state: State) -> State:
    """Weights, of a search without what it knows of its units."""
    searching = _is_search(state)
    return {
        name: value
        for name, value in state.items()
        if name.endswith('weight')
        and (name.startswith(_ARCHITECTURE) or not searching)
    }


def _part(name: str) -> str:
    """The part of a model that a weight belongs to."""
    inner = name.startswith(_ARCHITECTURE)
    return '.'.join(name.split('.')[: 2 if inner else 1])
