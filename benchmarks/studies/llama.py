"""Study: a small Llama cut to 80 % and 50 % of its parameters.

A Llama of about 6 M parameters is trained on local text, then cut by each
method and finetuned with the whole model as the teacher. All methods see the
same number of tokens: what DMS spends on its search the others have more in
their finetuning. Perplexity is that of held-out documents, windows of 128
tokens that do not overlap. Nothing is chosen by it.

    python benchmarks/studies/llama.py 'text/*.txt' --work work_dirs/llama

One run after the other; each is written when it ends, so that the same
command goes on where it was stopped and prints the table. Three texts of a
few lines and `--steps 4 --base-steps 4 --seeds 1` show that all of it runs.
"""

import argparse
import json
import os
import statistics
import time
from functools import partial
from glob import glob
from typing import Any, Dict, Iterator, List, NamedTuple

import torch
from torch import Tensor, nn

from dms_mmrazor import Search
from dms_mmrazor.baselines.structures import (
    STRUCTURES,
    Candidates,
    Request,
    taylor_scores,
)
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.plugins.transformers.causal_lm import perplexity
from dms_mmrazor.plugins.transformers.folder import load_model
from dms_mmrazor.plugins.transformers.tokens import TokenWindows
from dms_mmrazor.search.distillation import distillation_loss
from dms_mmrazor.subnet import Structure, prune

METHODS = ('dms', 'taylor', 'l1', 'random', 'uniform', 'llm-pruner')
TARGETS = (0.8, 0.5)
WINDOW = 128
VOCABULARY = 4096


class Run(NamedTuple):
    """One line of the table's data.

    Attributes:
        method (str): One of :data:`METHODS`.
        target (float): Portion of the parameters.
        seed (int): Of batches and random choices.
    """

    method: str
    target: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f'{self.method}_{self.target}_{self.seed}'


class Data(NamedTuple):
    """Windows of the two parts."""

    train: TokenWindows
    held_out: TokenWindows


def train_tokenizer(files: List[str], folder: str) -> Any:
    """Byte pairs of the text, once."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not os.path.isfile(os.path.join(folder, 'tokenizer.json')):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=['<end>'],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train(files, trainer)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token='<end>', pad_token='<end>'
        ).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def batches(data: TokenWindows, steps: int, seed: int) -> Iterator[Tensor]:
    """Shuffled batches [16, window], the same for all methods of a seed."""
    generator = torch.Generator().manual_seed(seed)
    while steps > 0:
        order = torch.randperm(len(data), generator=generator)
        for indices in order.split(16)[:steps]:
            items = [data[int(index)]['inputs'] for index in indices]
            yield torch.stack(items)
            steps -= 1


def optimizer_of(model: nn.Module, lr: float, steps: int) -> Any:
    """AdamW with a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return optimizer, schedule


def train_base(data: Data, folder: str, steps: int) -> None:
    """The whole model, once."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if os.path.isfile(os.path.join(folder, 'config.json')):
        return
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=WINDOW,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).train()
    optimizer, schedule = optimizer_of(model, 1e-3, steps)
    for step, tokens in enumerate(batches(data.train, steps, 0)):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f'base {step}/{steps}: loss {loss.item():.3f}', flush=True)
    model.save_pretrained(folder)


def llm_pruner_rule(mutator: Any, request: Request) -> Structure:
    """Only the layers in the middle, all by one portion, by Taylor scores.

    LLM-Pruner leaves the first four and the last two of 32 layers as they
    are; here the first and the last.
    """
    scores = taylor_scores(mutator, request.losses or ())
    candidates = Candidates(mutator, request.targets, scores)
    last = max(_layer(unit.name) for unit in mutator.units)

    def portions(kept: float) -> List[float]:
        return [
            kept if 0 < _layer(unit.name) < last else 1.0
            for unit in mutator.units
        ]

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if candidates.excess(portions(middle)) <= 0:
            low = middle
        else:
            high = middle
    return candidates.structure(portions(low), request.divisor)


def _layer(name: str) -> int:
    return int(name.split('layers.')[1].split('.')[0])


def found_by_dms(
    model: nn.Module, data: Data, run: Run, steps: int
) -> nn.Module:
    """Search with trained weights and the model itself as the teacher."""
    search = Search(
        model,
        dict(input_ids=data.train[0]['inputs'][None]),
        {'params': run.target},
        total_steps=steps,
        distill=dict(),
    )
    optimizer, _ = optimizer_of(model, 3e-4, steps)
    model.train()
    for tokens in batches(data.train, steps, run.seed):
        _, loss = search.distill(input_ids=tokens, use_cache=False)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    return search.export().model


def found_without_search(
    folder: str, data: Data, run: Run, scored: int
) -> nn.Module:
    """Cut the trained model by a rule."""
    model = load_model(folder, 'float32')
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, WINDOW)))
    mutator.prepare_from_supernet(model)

    def loss_of(tokens: Tensor) -> Tensor:
        return model(input_ids=tokens, labels=tokens, use_cache=False).loss

    request = Request(
        {'params': run.target * mutator.table.full['params']},
        seed=run.seed,
        losses=[
            partial(loss_of, tokens)
            for tokens in batches(data.train, scored, run.seed)
        ],
    )
    methods = {**STRUCTURES, 'llm-pruner': llm_pruner_rule}
    structure = methods[run.method](mutator, request)
    return prune(load_model(folder, 'float32'), structure)


def finetune(
    model: nn.Module, teacher: nn.Module, data: Data, steps: int, seed: int
) -> None:
    """Distillation alone."""
    optimizer, schedule = optimizer_of(model, 3e-4, steps)
    model.train()
    for tokens in batches(data.train, steps, 1000 + seed):
        with torch.no_grad():
            wanted = teacher(input_ids=tokens, use_cache=False).logits
        found = model(input_ids=tokens, use_cache=False).logits
        distillation_loss(found, wanted).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def execute(run: Run, folder: str, data: Data, steps: int) -> Dict[str, Any]:
    """One method at one target with one seed."""
    torch.manual_seed(run.seed)
    begin = time.perf_counter()
    searched = steps // 3
    if run.method == 'dms':
        model = load_model(folder, 'float32')
        model = found_by_dms(model, data, run, searched)
        left = steps - searched
    else:
        scored = min(10, searched)
        model = found_without_search(folder, data, run, scored)
        used = run.method in ('taylor', 'llm-pruner')
        left = steps - scored * used
    before = perplexity(model, data.held_out)
    finetune(model, load_model(folder, 'float32').eval(), data, left, run.seed)
    return {
        **run._asdict(),
        'params': sum(p.numel() for p in model.parameters()),
        'perplexity_before': before,
        'perplexity': perplexity(model, data.held_out),
        'tokens': steps * 16 * WINDOW,
        'seconds': time.perf_counter() - begin,
    }


def table(results: List[Dict[str, Any]], whole: float) -> str:
    """Mean and spread over the seeds."""
    lines = [
        '| parameters | method | kept / M | before finetuning | perplexity '
        '| s |',
        '|---|---|---|---|---|---|',
        f'| 100 % | whole | | | {whole:.2f} | |',
    ]
    for target in TARGETS:
        for method in METHODS:
            rows = [
                row
                for row in results
                if (row['method'], row['target']) == (method, target)
            ]
            if not rows:
                continue
            values = [row['perplexity'] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            kept, before, seconds = (
                statistics.mean(row[key] for row in rows)
                for key in ('params', 'perplexity_before', 'seconds')
            )
            lines.append(
                f'| {target:.0%} | {method} | {kept / 1e6:.2f} | '
                f'{before:.1f} | {statistics.mean(values):.2f} ± '
                f'{spread:.2f} ({len(rows)}) | {seconds:.0f} |'
            )
    return '\n'.join(lines)


def main() -> None:
    """Train the base, make the runs that are missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('text', nargs='+', help='.txt, a document a file')
    parser.add_argument('--work', default='work_dirs/llama_study')
    parser.add_argument('--steps', type=int, default=600)
    parser.add_argument('--base-steps', type=int, default=1500)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--methods', nargs='+', default=list(METHODS))
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = os.path.join(args.work, 'base')
    os.makedirs(base, exist_ok=True)
    files = sorted(path for text in args.text for path in glob(text))
    tokenizer = train_tokenizer(files, base)
    data = Data(
        *(
            TokenWindows(files, WINDOW, tokenizer, part=part)
            for part in ('train', 'held_out')
        )
    )
    train_base(data, base, args.base_steps)
    results = []
    for seed in range(args.seeds):
        for target in TARGETS:
            for method in args.methods:
                run = Run(method, target, seed)
                path = os.path.join(args.work, f'{run.name}.json')
                if not os.path.isfile(path):
                    found = execute(run, base, data, args.steps)
                    with open(f'{path}.new', 'w', encoding='utf-8') as file:
                        json.dump(found, file)
                    os.replace(f'{path}.new', path)
                    print(run, found['perplexity'], flush=True)
                with open(path, encoding='utf-8') as file:
                    results.append(json.load(file))
    whole = perplexity(load_model(base, 'float32'), data.held_out)
    print(table(results, whole))


if __name__ == '__main__':
    main()
