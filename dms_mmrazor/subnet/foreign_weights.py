"""Whether weights are those of another network.

mmengine loads what fits and warns of the rest, which is right for a head of
other classes, but a search or a retraining that loads the weights of another
network starts from random ones.
"""

from typing import Any, List, Mapping

from torch import Tensor, nn

from dms_mmrazor.errors import DMSError

State = Mapping[str, Tensor]

_ARCHITECTURE = 'architecture.'


def is_of_search(state: State) -> bool:
    """Whether weights are those of a search, its supernet's and its own."""
    return any(name.startswith(_ARCHITECTURE) for name in state)


def check_search_weights(
    model: nn.Module, state: State, key: str, path: str
) -> None:
    """Raise if a search would start from foreign weights.

    Args:
        model (nn.Module): The algorithm.
        state (Mapping[str, Tensor]): What would be loaded.
        key (str): Config key that says so, for the message.
        path (str): The file, for the message.

    Raises:
        DMSError: It names the key, the file and what to load instead.
    """
    state = plain_names(state)
    if not is_of_search(state):
        raise DMSError(
            f'`{key}`: {path} has the weights of a plain model, and a '
            'search would not find them: give them to `model.'
            "architecture.init_cfg=dict(type='Pretrained', "
            f"checkpoint='{path}')` and remove `{key}`."
        )
    wrong = foreign_weights(model.state_dict(), state)
    if wrong:
        raise DMSError(
            f'`{key}`: {path} has the weights of another network: '
            f'{wrong[0]}. Load a search of this architecture, or remove '
            f'`{key}`.'
        )


def check_subnet_weights(
    model: nn.Module, state: State, source: str, key: str
) -> None:
    """Raise if a retraining would start from foreign weights.

    Args:
        model (nn.Module): The plain subnet.
        state (Mapping[str, Tensor]): What would be loaded.
        source (str): Where it comes from, for the message.
        key (str): Config key that says so, for the message.

    Raises:
        DMSError: It names the source and what to load instead.
    """
    state = plain_names(state)
    if is_of_search(state):
        raise DMSError(
            f'{source} is a checkpoint of a search, its weights '
            'are those of the supernet: load the `subnet.pth` that lies '
            'beside the structure file, or one that '
            '`tools/export_subnet.py` makes of this checkpoint.'
        )
    wrong = foreign_weights(model.state_dict(), state)
    if wrong:
        raise DMSError(
            f'{source} has the weights of another network: {wrong[0]}. Load '
            'the `subnet.pth` that was written with the file in '
            f'`model.structure`, or remove {key} to train from the start.'
        )


def refuse_foreign_weights(model: nn.Module) -> None:
    """Let a subnet check whatever is loaded into it, by whom it may be.

    Args:
        model (nn.Module): A plain subnet; it gets a hook.
    """
    if hasattr(model, 'register_load_state_dict_pre_hook'):
        model.register_load_state_dict_pre_hook(_check_loaded)
    else:  # torch < 2.5
        model._register_load_state_dict_pre_hook(_check_loaded, True)


def _check_loaded(
    model: nn.Module, state: State, prefix: str, *others: Any
) -> None:
    """As torch calls it before weights are loaded."""
    own = {
        name[len(prefix) :]: value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    if own:
        source = 'what is loaded (`load_from` or `init_cfg.checkpoint`)'
        check_subnet_weights(model, own, source, 'it')


def plain_names(state: State) -> State:
    """Without what a distributed wrapper writes before names."""
    start = len('module.')
    if all(name.startswith('module.') for name in state):
        return {name[start:]: value for name, value in state.items()}
    return state


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
    searching = is_of_search(state)
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
