"""Evaluate a checkpoint of a search, of a retraining or of any model."""

import argparse

from mmengine.evaluator import DumpResults

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.engine import checkpoint_files
from dms_mmrazor.engine.runner_access import plain_model
from dms_mmrazor.errors import DMSError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    command_line.add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    command_line.add_launch_arguments(parser)
    parser.add_argument('--out', help='file (.pkl) for the predictions')
    parser.add_argument(
        '--amp', action='store_true', help='evaluate with mixed precision'
    )
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Build the runner and evaluate."""
    args = parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise DMSError(f'--out must name a .pkl file, got {args.out}.')
    cfg = command_line.read_config(args.config, args.cfg_options)
    command_line.prepare_launch(cfg, args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.amp:
        cfg.test_cfg.fp16 = True
    state = None
    if '://' not in args.checkpoint:
        checkpoint = checkpoint_files.read_checkpoint(args.checkpoint)
        state = checkpoint_files.state_dict_of(checkpoint, args.checkpoint)
    runner = command_line.build_runner(cfg)
    if state is not None:
        model = plain_model(runner)
        checkpoint_files.check_fits(model, state, args.checkpoint)
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(args.out))
    runner.test()
    command_line.leave_processes()


if __name__ == '__main__':
    main()
