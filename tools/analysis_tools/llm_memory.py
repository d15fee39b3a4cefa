"""Memory of a search of a language model with frozen weights, worked out.

Sizes come from the config.json of a folder, or are those of Llama-7B.
"""

import argparse
import json
import os.path as osp

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.memory import rows, search_memory


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--model', help='folder with config.json; by default Llama-7B'
    )
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--window', type=int, default=128)
    parser.add_argument(
        '--dtype',
        default='bfloat16',
        choices=['float32', 'bfloat16', 'float16'],
    )
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Print the table."""
    args = parse_args()
    # The defaults of transformers' Llama are those of Llama-7B.
    config = {'model_type': 'llama'}
    if args.model is not None:
        path = osp.join(args.model, 'config.json')
        if not osp.isfile(path):
            raise DMSError(f'--model: there is no {path!r}.')
        with open(path, encoding='utf-8') as file:
            config = json.load(file)
    print(rows(search_memory(config, args.batch, args.window, args.dtype)))


if __name__ == '__main__':
    main()
