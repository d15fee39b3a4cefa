"""What the command-line tools share."""

import functools
import os
import os.path as osp
import sys
from argparse import ArgumentParser, Namespace
from typing import Any, Callable, Dict, Optional

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from dms_mmrazor.compat.cpu_processes import use_cpu_processes
from dms_mmrazor.errors import DMSError

USER_ERROR = 2


def one_line_errors(main: Callable[..., Any]) -> Callable[..., Any]:
    """Print a :class:`DMSError` without traceback; exit with status 2."""

    @functools.wraps(main)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except DMSError as error:
            sys.stdout.flush()
            print(f'error: {error}', file=sys.stderr)
            sys.exit(USER_ERROR)

    return wrapper


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add ``config`` and ``--cfg-options``."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
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
    except (OSError, SyntaxError, ValueError, KeyError) as error:
        line = ' '.join(str(error).split())
        raise DMSError(
            f'config {path} cannot be read: {type(error).__name__}: {line}'
        ) from error
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError, IndexError) as error:
        raise DMSError(f'--cfg-options do not fit {path}: {error}') from None
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
    """Build the runner that a config asks for."""
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def plain_model(runner: Runner) -> nn.Module:
    """The model of a runner, out of its wrappers."""
    model = runner.model
    while is_model_wrapper(model):
        model = model.module
    return model
