"""Study: a small Llama cut to 80 % and 50 % of its parameters.

A Llama of about 6 M parameters is trained on local text, then cut by each
method and finetuned with the whole model as the teacher. All methods see the
same number of tokens: what DMS spends on its search the others have more in
their finetuning. Perplexity is that of held-out documents, windows of 128
tokens that do not overlap. Nothing is chosen by it.

    python benchmarks/studies/llama.py 'text/*.txt' --jobs 2

The text is what ``wikipedia.py`` beside it writes, or any other. Each run is
a process of its own and is written when it ends, so that the same command
goes on where it was stopped; it ends with the table. Three texts of a few
lines and ``--steps 4 --base-steps 4 --seeds 0`` show that all of it runs.
"""

import argparse
import json
import os
import statistics
import sys
from functools import partial
from glob import glob
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn

from dms_mmrazor import Search
from dms_mmrazor.baselines.runs import Record, Run, Study
from dms_mmrazor.baselines.structures import (
    STRUCTURES,
    Candidates,
    Request,
    taylor_scores,
)
from dms_mmrazor.files import write_text
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.plugins.transformers.byte_pairs import train_tokenizer
from dms_mmrazor.plugins.transformers.causal_lm import perplexity
from dms_mmrazor.plugins.transformers.folder import load_model
from dms_mmrazor.plugins.transformers.tokens import TokenWindows
from dms_mmrazor.search.distillation import distillation_loss
from dms_mmrazor.subnet import Structure, prune

METHODS = ('dms', 'taylor', 'l1', 'l2', 'random', 'uniform', 'llm-pruner')
TARGETS = (0.8, 0.5)
WINDOW = 128
VOCABULARY = 4096

Settings = Dict[str, Any]


class Data(NamedTuple):
    """Windows of the two parts."""

    train: TokenWindows
    held_out: TokenWindows


class Recipe(NamedTuple):
    """How a model is cut and trained.

    Attributes:
        batch (int): Windows of a step. Defaults to 16.
        lr (float): Learning rate of search and finetuning. Defaults to 3e-4.
        spared (tuple[int, int]): So many layers at the begin and at the end
            stay as they are by LLM-Pruner's rule. Defaults to (1, 1).
    """

    batch: int = 16
    lr: float = 3e-4
    spared: Tuple[int, int] = (1, 1)


PLAIN = Recipe()


def batches(
    data: TokenWindows, steps: int, seed: int, size: int = PLAIN.batch
) -> Iterator[Tensor]:
    """Shuffled batches [size, window], the same for all methods of a seed."""
    generator = torch.Generator().manual_seed(seed)
    while steps > 0:
        order = torch.randperm(len(data), generator=generator)
        for indices in order.split(size)[:steps]:
            items = [data[int(index)]['inputs'] for index in indices]
            yield torch.stack(items)
            steps -= 1


def optimizer_of(model: nn.Module, lr: float, steps: int) -> Any:
    """AdamW with a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return optimizer, schedule


def train_base(data: Data, folder: str, steps: int) -> nn.Module:
    """The whole model."""
    from transformers import LlamaConfig, LlamaForCausalLM

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
    return model


def llm_pruner_rule(
    mutator: Any, request: Request, spared: Tuple[int, int]
) -> Structure:
    """Only the layers in the middle, all by one portion, by Taylor scores.

    LLM-Pruner leaves the first four and the last two of 32 layers as they
    are.
    """
    scores = taylor_scores(mutator, request.losses or ())
    candidates = Candidates(mutator, request.targets, scores)
    first = spared[0]
    last = max(_layer(unit.name) for unit in mutator.units) - spared[1]

    def portions(kept: float) -> List[float]:
        return [
            kept if first <= _layer(unit.name) <= last else 1.0
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
    model: nn.Module,
    data: Data,
    settings: Settings,
    steps: int,
    recipe: Recipe = PLAIN,
) -> nn.Module:
    """Search with trained weights and the model itself as the teacher."""
    search = Search(
        model,
        dict(input_ids=data.train[0]['inputs'][None]),
        {'params': settings['target']},
        total_steps=steps,
        distill=dict(),
    )
    optimizer, _ = optimizer_of(model, recipe.lr, steps)
    model.train()
    for tokens in batches(data.train, steps, settings['seed'], recipe.batch):
        _, loss = search.distill(input_ids=tokens, use_cache=False)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        search.step()
    return search.export().model


def found_without_search(
    folder: str,
    data: Data,
    settings: Settings,
    scored: int,
    recipe: Recipe = PLAIN,
) -> nn.Module:
    """Cut the trained model by a rule."""
    model = load_model(folder, 'float32')
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, WINDOW)))
    mutator.prepare_from_supernet(model)

    def loss_of(tokens: Tensor) -> Tensor:
        return model(input_ids=tokens, labels=tokens, use_cache=False).loss

    seed = settings['seed']
    request = Request(
        {'params': settings['target'] * mutator.table.full['params']},
        seed=seed,
        losses=[
            partial(loss_of, tokens)
            for tokens in batches(data.train, scored, seed, recipe.batch)
        ],
    )
    rule = partial(llm_pruner_rule, spared=recipe.spared)
    methods = {**STRUCTURES, 'llm-pruner': rule}
    structure = methods[settings['method']](mutator, request)
    return prune(load_model(folder, 'float32'), structure)


def finetune(
    model: nn.Module,
    teacher: nn.Module,
    data: Data,
    steps: int,
    seed: int,
    recipe: Recipe = PLAIN,
) -> None:
    """Distillation alone."""
    optimizer, schedule = optimizer_of(model, recipe.lr, steps)
    model.train()
    for tokens in batches(data.train, steps, 1000 + seed, recipe.batch):
        with torch.no_grad():
            wanted = teacher(input_ids=tokens, use_cache=False).logits
        found = model(input_ids=tokens, use_cache=False).logits
        distillation_loss(found, wanted).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


class Runs:
    """Does the runs of the study.

    Args:
        study (Study): Where files go.
        text (Sequence[str]): Files or patterns.
    """

    def __init__(self, study: Study, text: Sequence[str]) -> None:
        self.base = study.file('base')
        files = sorted(path for pattern in text for path in glob(pattern))
        tokenizer = train_tokenizer(files, self.base, VOCABULARY)
        self.data = Data(
            *(
                TokenWindows(files, WINDOW, tokenizer, part=part)
                for part in ('train', 'held_out')
            )
        )

    def __call__(
        self, run: Run, needs: Mapping[str, Record]
    ) -> Dict[str, Any]:
        """Do one run."""
        torch.set_num_threads(1)  # others run beside it
        torch.set_flush_denormal(True)
        return getattr(self, run.kind)(run.settings)

    def whole(self, settings: Settings) -> Dict[str, Any]:
        """Train the whole model."""
        model = train_base(self.data, self.base, settings['base_steps'])
        return {
            'params': sum(p.numel() for p in model.parameters()),
            'perplexity': perplexity(model.eval(), self.data.held_out),
            'train_windows': len(self.data.train),
            'held_out_windows': len(self.data.held_out),
        }

    def cut(self, settings: Settings) -> Dict[str, Any]:
        """One method at one target with one seed."""
        torch.manual_seed(settings['seed'])
        steps, data = settings['steps'], self.data
        searched = steps // 3
        if settings['method'] == 'dms':
            model = load_model(self.base, 'float32')
            model = found_by_dms(model, data, settings, searched)
            left = steps - searched
        else:
            scored = min(10, searched)
            model = found_without_search(self.base, data, settings, scored)
            used = settings['method'] in ('taylor', 'llm-pruner')
            left = steps - scored * used
        before = perplexity(model, data.held_out)
        teacher = load_model(self.base, 'float32').eval()
        finetune(model, teacher, data, left, settings['seed'])
        return {
            'params': sum(p.numel() for p in model.parameters()),
            'perplexity_before': before,
            'perplexity': perplexity(model, data.held_out),
            'tokens': steps * 16 * WINDOW,
            'layers': layer_sizes(model),
        }


def layer_sizes(model: nn.Module) -> List[str]:
    """Of each layer the dimensions of all heads and of the FFN."""
    return [
        f'{layer.self_attn.o_proj.in_features} + '
        f'{layer.mlp.down_proj.in_features}'
        for layer in model.model.layers
    ]


def plan(args: argparse.Namespace) -> List[Run]:
    """All runs, the whole model first."""
    base = {'base_steps': args.base_steps}
    runs = [Run('whole', 'whole', base)]
    for seed in args.seeds:
        for target in args.targets:
            for method in args.methods:
                settings = dict(
                    **base,
                    steps=args.steps,
                    method=method,
                    target=target,
                    seed=seed,
                )
                name = f'{method}-t{target:g}-s{seed}'
                runs.append(Run(name, 'cut', settings, ('whole',)))
    return runs


def table(records: Mapping[str, Record]) -> str:
    """Mean and spread over the seeds, the largest networks first."""
    whole = records['whole']['result']
    lines = [
        '| parameters | method | kept / M | before finetuning | perplexity '
        '| s |',
        '|---|---|---|---|---|---|',
        f'| 100 % | whole | {whole["params"] / 1e6:.2f} | | '
        f'{whole["perplexity"]:.2f} | {records["whole"]["cpu_seconds"]:.0f} |',
    ]
    groups: Dict[Tuple[float, str], List[Record]] = {}
    for record in records.values():
        if record['kind'] == 'cut':
            key = record['settings']['target'], record['settings']['method']
            groups.setdefault(key, []).append(record)
    for target, method in sorted(groups, key=lambda key: -key[0]):
        mine = groups[target, method]
        values = [record['result']['perplexity'] for record in mine]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        kept, before = (
            statistics.fmean(record['result'][key] for record in mine)
            for key in ('params', 'perplexity_before')
        )
        seconds = statistics.fmean(record['cpu_seconds'] for record in mine)
        lines.append(
            f'| {target:.0%} | {method} | {kept / 1e6:.2f} | {before:.1f} | '
            f'{statistics.fmean(values):.2f} ± {spread:.2f} ({len(values)}) | '
            f'{seconds:.0f} |'
        )
    return '\n'.join(lines)


def main() -> None:
    """Plan, do what is missing, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('text', nargs='+', help='.txt, a document a file')
    parser.add_argument('--out-dir', default='work_dirs/llama_study')
    parser.add_argument('--steps', type=int, default=600)
    parser.add_argument('--base-steps', type=int, default=1500)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--targets', type=float, nargs='+', default=TARGETS)
    parser.add_argument('--methods', nargs='+', default=list(METHODS))
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--run', help=argparse.SUPPRESS)
    args = parser.parse_args()
    study = Study(args.out_dir, plan(args))
    if args.run:
        study.perform(args.run, Runs(study, args.text))
        return
    records = study.execute([sys.executable, *sys.argv], args.jobs)
    text = table(records)
    base = os.path.join(args.out_dir, 'llama')
    write_text(f'{base}.md', f'{text}\n')
    write_text(f'{base}.json', json.dumps(list(records.values()), indent=1))
    print(f'{text}\n\nWrote {base}.md and {base}.json.')


if __name__ == '__main__':
    main()
