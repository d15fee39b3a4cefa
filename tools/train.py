"""Train a model: a search, a retraining or anything else of OpenMMLab."""

import argparse

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim.optimizer import amp_optimizer_wrapper

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.cli.training_length import shorten_to_portion
from dms_mmrazor.cli.training_start import (
    check_start_weights,
    choose_resume,
    make_repeatable,
)
from dms_mmrazor.engine import checkpoint_files
from dms_mmrazor.engine.runner_access import plain_model
from dms_mmrazor.engine.search_config import find_resource_hook
from dms_mmrazor.errors import DMSError
from dms_mmrazor.type_names import has_type, type_name


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    command_line.add_config_arguments(parser)
    command_line.add_launch_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint or, without a path, from the '
        'latest one in the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train with mixed precision'
    )
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='do not evaluate during the training',
    )
    parser.add_argument(
        '--portion',
        type=float,
        help="train for this portion of the config's length, with a "
        'schedule of its own: 0.1 for a search by the config of a training, '
        '0.02 for a fast one',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the actual batch size',
    )
    return parser.parse_args()


def use_amp(cfg: Config) -> None:
    """Switch to mixed precision; the constructor stays what it is."""
    wrapper = cfg.optim_wrapper
    kind = type_name(wrapper)
    if kind not in ('', 'OptimWrapper', 'AmpOptimWrapper'):
        raise DMSError(
            f'--amp needs `optim_wrapper.type` OptimWrapper, got {kind}.'
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def check_search(cfg: Config) -> None:
    """Find what would stop a training late, or never.

    Raises:
        DMSError: If a search has no ResourceHook, a loop has settings of
            another one, or a training by mixed precision has no GPU.
    """
    if has_type(cfg.get('model'), 'DMSAlgorithm'):
        find_resource_hook(cfg)
    loop = cfg.get('train_cfg') or {}
    if 'type' in loop and 'by_epoch' in loop:
        raise DMSError(
            f'`train_cfg` of type {loop["type"]} has inherited `by_epoch`, '
            'which belongs to another loop: write `train_cfg=dict('
            f"_delete_=True, type='{loop['type']}')`."
        )
    amp = has_type(cfg.get('optim_wrapper'), 'AmpOptimWrapper')
    # The second is what mmengine itself asks when it builds the wrapper.
    has_gpu = get_device() not in ('cpu', 'mps')
    if amp and not (has_gpu or amp_optimizer_wrapper.is_cuda_available()):
        raise DMSError(
            '`optim_wrapper.type=AmpOptimWrapper`, or --amp, needs a GPU; '
            'none is available: write `OptimWrapper` without `loss_scale`.'
        )


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Bring the command line's options into a config."""
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr'):
            raise DMSError(
                '--auto-scale-lr needs `auto_scale_lr.base_batch_size` in '
                'the config.'
            )
        cfg.auto_scale_lr.enable = True
    if args.portion is not None:
        shorten_to_portion(cfg, args.portion, '--portion')
    choose_resume(cfg, args.resume)
    make_repeatable(cfg)


@command_line.one_line_errors
def main() -> None:
    """Build the runner and train."""
    args = parse_args()
    cfg = command_line.read_config(args.config, args.cfg_options)
    command_line.prepare_launch(cfg, args)
    apply_options(cfg, args)
    check_search(cfg)
    resumed = checkpoint_files.check_config_checkpoints(cfg)
    runner = command_line.build_runner(cfg)
    model = plain_model(runner)
    check_start_weights(model, cfg)
    if resumed is not None:
        checkpoint_files.check_fits(model, *resumed)
    runner.train()
    command_line.leave_processes()


if __name__ == '__main__':
    main()
