"""Turn a published supernet of OFA or AutoFormer into one of a config here.

For example ``shared_supernet.py ofa configs/spaces/ofa/
ofa-mobilenetv3_8xb64_in1k.py published.pth work_dirs/ofa/supernet.pth``.
"""

import argparse

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.files import written_at_once
from dms_mmrazor.models.spaces.checkpoints import LOADERS


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('space', choices=sorted(LOADERS))
    parser.add_argument('config', help='config of the plain supernet')
    parser.add_argument('source', help='published checkpoint')
    parser.add_argument('out', help='checkpoint to write')
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Build the supernet, convert, write."""
    args = parse_args()
    cfg: Config = command_line.read_config(args.config)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    wanted = MODELS.build(cfg.model).state_dict()
    source = torch.load(args.source, map_location='cpu', weights_only=True)
    state = LOADERS[args.space](source, wanted)
    with written_at_once(args.out) as path:
        torch.save({'state_dict': state, 'meta': {}}, path)
    print(f'Wrote {args.out}: {len(state)} tensors.')


if __name__ == '__main__':
    main()
