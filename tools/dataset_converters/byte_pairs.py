"""Learn a tokenizer of byte pairs from local text."""

import argparse
from glob import glob

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.plugins.transformers.byte_pairs import train_tokenizer


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('text', help='text files: a pattern')
    parser.add_argument('folder', help='where to write the tokenizer')
    parser.add_argument('--vocabulary', type=int, default=4096)
    return parser.parse_args()


@command_line.one_line_errors
def main() -> None:
    """Learn it and say how large it is."""
    args = parse_args()
    files = sorted(glob(args.text))
    tokenizer = train_tokenizer(files, args.folder, args.vocabulary)
    print(f'{args.folder}: {len(tokenizer)} tokens')


if __name__ == '__main__':
    main()
