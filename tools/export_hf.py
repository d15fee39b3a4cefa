"""Write a found language model as a folder that transformers loads."""

import argparse

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.cli import command_line
from dms_mmrazor.plugins.transformers.folder import export_folder
from dms_mmrazor.plugins.transformers.gguf_file import folder_to_gguf


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('supernet', help='folder of the searched model')
    parser.add_argument('structure', help='subnet.yaml of the search')
    parser.add_argument('out', help='folder to write')
    parser.add_argument(
        '--weights',
        help='subnet.pth or a checkpoint of its finetuning; by default the '
        "supernet's own weights, cut",
    )
    parser.add_argument(
        '--dtype',
        choices=['float32', 'bfloat16', 'float16'],
        help="instead of the supernet's",
    )
    parser.add_argument(
        '--gguf',
        metavar='FILE',
        help='write this file for llama.cpp, too; needs the package gguf',
    )
    parser.add_argument(
        '--gguf-pre',
        metavar='NAME',
        help="llama.cpp's name for how the tokenizer splits a text, such as "
        'llama-bpe; by default gpt-2 or smollm, if it splits so',
    )
    parser.add_argument(
        '--gguf-no-tokenizer',
        action='store_true',
        help='the file reads token ids alone',
    )
    args = parser.parse_args()
    if args.gguf is None and (args.gguf_pre or args.gguf_no_tokenizer):
        parser.error('--gguf-pre and --gguf-no-tokenizer need --gguf FILE')
    return args


@command_line.one_line_errors
def main() -> None:
    """Export and say what was written."""
    args = parse_args()
    written = export_folder(
        args.supernet, args.structure, args.out, args.weights, args.dtype
    )
    print(
        f'{args.out}: {written["params"]:,} parameters; '
        + ', '.join(written['files'])
    )
    if args.gguf is not None:
        tokenizer = not args.gguf_no_tokenizer
        folder_to_gguf(args.out, args.gguf, tokenizer, args.gguf_pre)
        print(f'{args.gguf}: the same for llama.cpp')


if __name__ == '__main__':
    main()
