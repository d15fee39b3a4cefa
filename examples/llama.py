"""Search a language model, from a checkpoint to a Hugging Face folder.

    python examples/llama.py --model FOLDER --text 'text/*.txt' --out found

Searches heads and FFN widths of a local Llama, Mistral or Qwen for 80 % of
its parameters, with the model itself as the teacher, finetunes what it found
and writes a folder that transformers loads. Without --model it first trains
a tiny Llama on the bytes of Python's own help texts, which shows the same in
a minute or two. It needs this package with its extra `llama`; nothing is
downloaded.
"""

import argparse
import os
import sys
import tempfile
from typing import Any, Iterator, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from dms_mmrazor import DMSError, Search
from dms_mmrazor.plugins.transformers.causal_lm import perplexity
from dms_mmrazor.plugins.transformers.folder import load_model, save_folder
from dms_mmrazor.plugins.transformers.lora import add_lora, merge_lora
from dms_mmrazor.plugins.transformers.tokens import TokenWindows
from dms_mmrazor.search.distillation import distillation_loss

END = 0
"""Byte behind each text of the tiny model."""


def tiny_data(folder: str) -> str:
    """Bytes of Python's help texts, as an array of token ids."""
    from pydoc_data.topics import topics

    data = [text.encode('ascii', 'ignore') for text in topics.values()]
    path = os.path.join(folder, 'bytes.npy')
    np.save(path, np.frombuffer(bytes([END]).join(data), dtype=np.uint8))
    return path


def tiny_model(data: TokenWindows, steps: int) -> nn.Module:
    """A Llama with random weights, trained for a moment."""
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        eos_token_id=END,
        pad_token_id=END,
    )
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for inputs, labels in batches(data, 16, steps):
        model(input_ids=inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def batches(
    data: TokenWindows, size: int, steps: int
) -> Iterator[Tuple[Tensor, Tensor]]:
    """Shuffled batches, as often as it takes."""
    while steps > 0:
        for indices in torch.randperm(len(data)).split(size)[:steps]:
            items = [data[int(index)] for index in indices]
            yield tuple(
                torch.stack([item[key] for item in items])
                for key in ('inputs', 'data_samples')
            )
            steps -= 1


def search(
    model: nn.Module, data: TokenWindows, args: argparse.Namespace
) -> Any:
    """Find a structure; weights train along, the model is the teacher."""
    found = Search(
        model,
        dict(input_ids=data[0]['inputs'][None]),
        {'params': args.target},
        total_steps=args.steps,
        distill=dict(temperature=1.0),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    model.train()
    for step, (inputs, _) in enumerate(batches(data, args.batch, args.steps)):
        _, loss = found.distill(input_ids=inputs, use_cache=False)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log = found.step()
        if step % 20 == 0 or step == args.steps - 1:
            print(
                f'step {step + 1}: {log["phase"]}, parameters '
                f'{float(log["params_ratio"]):.3f}, distillation '
                f'{float(loss):.4f}'
            )
    return found.export(divisor=args.divisor), found.teacher


def finetune(
    model: nn.Module,
    teacher: nn.Module,
    data: TokenWindows,
    args: argparse.Namespace,
) -> None:
    """Let the found model, or adapters of it, learn from the whole one."""
    if args.lora:
        add_lora(model, args.lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr)
    model.train()
    for inputs, _ in batches(data, args.batch, args.finetune_steps):
        with torch.no_grad():
            wanted = teacher(input_ids=inputs).logits
        found = model(input_ids=inputs, use_cache=False).logits
        distillation_loss(found, wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
    if args.lora:
        merge_lora(model)


def main() -> None:
    """Search, finetune, write, and load again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', help='local folder of a language model')
    parser.add_argument('--text', nargs='+', help='local .txt or .jsonl')
    parser.add_argument('--out', default='found')
    parser.add_argument('--target', type=float, default=0.8)
    parser.add_argument('--window', type=int, default=128)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--finetune-steps', type=int, default=200)
    parser.add_argument('--lr', type=float, default=1e-4)
    parser.add_argument('--divisor', type=int, default=8)
    parser.add_argument(
        '--lora',
        type=int,
        metavar='RANK',
        help='finetune adapters of this rank alone; needs peft',
    )
    args = parser.parse_args()
    if args.model is not None and not args.text:
        parser.error('--model needs --text, local .txt or .jsonl files')
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(window=args.window, tokenizer=args.model)
        if args.model is None:
            args.text = [tiny_data(folder)]
            settings['end_token'] = END
        data = TokenWindows(args.text, part='train', **settings)
        held_out = TokenWindows(args.text, part='held_out', **settings)
    if args.model is None:
        model = tiny_model(data, 2 * args.steps)
        args.lr = 1e-3
    else:
        model = load_model(args.model, 'float32')
    print(f'whole: perplexity {perplexity(model, held_out):.2f}')
    subnet, teacher = search(model, data, args)
    print(subnet.structure.resources['params'])
    print(f'searched: perplexity {perplexity(subnet.model, held_out):.2f}')
    finetune(subnet.model, teacher, data, args)
    save_folder(subnet.model, args.out, structure=subnet.structure)
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(
        args.out, trust_remote_code=True
    )
    print(f'finetuned: perplexity {perplexity(again, held_out):.2f}')


if __name__ == '__main__':
    try:
        main()
    except DMSError as error:
        sys.exit(f'error: {error}')
