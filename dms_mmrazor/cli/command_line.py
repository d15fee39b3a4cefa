"""What the command-line tools share."""

import functools
import os
import os.path as osp
import re
import sys
from argparse import ArgumentParser, Namespace
from typing import Any, Callable, Dict, Optional

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from dms_mmrazor.compat.cpu_processes import use_cpu_processes
from dms_mmrazor.engine.config_keywords import check_keywords
from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import HOOKS, MODELS

USER_ERROR = 2

_GONE = {
    'search_optim_wrapper': 'delete what names it: `optim_wrapper` of the '
    'training config stays as it is, `paramwise_cfg.structure` is now '
    "`model.structure_step=dict(rule='price')`",
}
"""Names that base configs had → what to do."""

# What mmengine says of a `type` that nothing has registered.
_UNREGISTERED = re.compile(r'[^\s"\']+ is not in the \S+ registry')


def one_line_errors(main: Callable[..., Any]) -> Callable[..., Any]:
    """Print a :class:`DMSError` without traceback; exit with status 2."""

    @functools.wraps(main)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except DMSError as error:
            line = str(error)
        except KeyError as error:
            found = _UNREGISTERED.search(str(error))
            if not found:
                raise
            line = f'{found.group()}: {_lacking(found.group())}'
        sys.stdout.flush()
        print(f'error: {line}{_renamed(line)}', file=sys.stderr)
        sys.exit(USER_ERROR)

    return wrapper


def _lacking(text: str) -> str:
    """What to do about a type that is not registered.

    Args:
        text (str): What mmengine says; the type comes first.
    """
    name = text.split()[0]
    if any(name in registry.module_dict for registry in (MODELS, HOOKS)):
        return f"write `type='mmrazor.{name}'`"
    return 'misspelled, or `custom_imports` lacks it'


def _renamed(text: str) -> str:
    """A hint for a message that names a package by its former name."""
    if not re.search(r'\bmmcls\b', text):
        return ''
    return ' (mmcls is called mmpretrain now: write that in the config.)'


class KeyValues(DictAction):
    """mmengine's reading of key=value; anything else is a usage error."""

    def __call__(
        self, parser: ArgumentParser, namespace: Any, values: Any, *args: Any
    ) -> None:
        """Read the options of a command line."""
        for value in values:
            if '=' not in value:
                parser.error(f'--cfg-options takes key=value, got {value!r}')
        super().__call__(parser, namespace, values, *args)


def add_direction_arguments(parser: ArgumentParser) -> None:
    """Options that say which values of the metric are better."""
    direction = parser.add_mutually_exclusive_group()
    for word, value in (('lower', True), ('higher', False)):
        direction.add_argument(
            f'--{word}-is-better',
            dest='lower_is_better',
            action='store_const',
            const=value,
            help=f'{word} values of the metric are better; by default what '
            'its name tells',
        )


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add ``config`` and ``--cfg-options``."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        help='overrides settings of the config: key=value, with dots for '
        'nested keys; lists as key="[a,b]" or key=a,b, without spaces',
    )


def add_launch_arguments(parser: ArgumentParser) -> None:
    """Add ``--work-dir``, ``--launcher`` and the rank of a launcher."""
    parser.add_argument('--work-dir', help='folder of logs and results')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes the first before torch 2.0 and the
    # second after it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def read_config(path: str, options: Optional[Dict[str, Any]] = None) -> Config:
    """Read a config file and override some of its settings.

    Args:
        path (str): The config file.
        options (dict, optional): From ``--cfg-options``. Defaults to None.

    Raises:
        DMSError: If the file does not exist or is not a config.
    """
    if not osp.isfile(path):
        raise DMSError(f'config {path} does not exist.')
    try:
        cfg = Config.fromfile(path)
    except DMSError:
        raise
    except Exception as error:  # a config is a program
        line = ' '.join(str(error).split())[:300]
        for name, advice in _GONE.items():
            if f"'{name}'" in line:
                line = f'`{name}` is gone: {advice}.'
        raise DMSError(
            f'config {path} cannot be read: {type(error).__name__}: {line}'
        ) from error
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError, IndexError) as error:
        raise DMSError(f'--cfg-options do not fit {path}: {error}') from None
    check_keywords(cfg)
    return cfg


def prepare_launch(cfg: Config, args: Namespace) -> None:
    """Set the launcher, this process's rank and the working folder.

    Args:
        cfg (Config): It is changed in place.
        args (Namespace): With what :func:`add_launch_arguments` adds.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)

    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        use_cpu_processes(cfg)


def build_runner(cfg: Config) -> Runner:
    """Build the runner that a config asks for.

    Raises:
        DMSError: If it has no model.
    """
    if not cfg.get('model'):
        raise DMSError(f'config {cfg.filename} has no `model`.')
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def leave_processes() -> None:
    """Wait for the other processes, then close the process group.

    A launcher stops all processes when one fails: none may end, which an
    open group can turn into an abort, while the first still exports.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
