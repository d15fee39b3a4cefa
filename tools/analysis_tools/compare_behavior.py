"""Compare what searches find and export before and after a change of code.

    python tools/analysis_tools/compare_behavior.py before
    python tools/analysis_tools/compare_behavior.py after --against before

Each architecture of `coverage_models.py`, on a small input, and each toy of
`tests/zoo.py` has one file in the folder: groups, reasons, units, stages,
report, counts, gradients of the masks and what two exported models compute.
It is measured in a process of its own; files that are there stay, so that an
interrupted run goes on where it was, and `--again` measures anew. Files of
two folders can also be read side by side with `diff`.
"""

import argparse
import json
import logging
import multiprocessing
import os.path as osp
import random
import re
import sys
import traceback
from copy import deepcopy
from glob import glob
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

import torch
from search_coverage import CASES, DOCS, load_architecture
from torch import Tensor, nn

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text
from dms_mmrazor.graph import count_macs, find_stages
from dms_mmrazor.graph.demo import (
    demo_tensor,
    enliven,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.graph.layer_profile import run_first
from dms_mmrazor.graph.outputs import flatten_tensors
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.subnet import prune
from dms_mmrazor.supernet.plain import plain_copy
from dms_mmrazor.supernet.preparation import find_groups
from dms_mmrazor.supernet.verify import randomize

sys.path.insert(0, osp.join(DOCS, '../tests'))
from zoo import TOYS  # noqa: E402

TOLERANCE = 1e-4
"""Numbers may differ by this, relative: sums in another order do."""

SMALLEST = 1e-5
"""Numbers below it are compared as if they were of this size."""

STRUCTURES = 2

ANY_SIZE = (
    'ResN',
    'SE-ResNet',
    'RegNet',
    'Mobile',
    'EfficientN',
    'RepVGG',
    'DenseNet',
    'ConvNeXt',
)
"""Beginnings of names of models that run on 64 x 64 pixels."""

Record = Dict[str, Any]
Size = Tuple[int, ...]


def parse_args(args: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', help='where the files of this code are')
    parser.add_argument('--against', help='folder of the other code')
    parser.add_argument(
        '--only',
        nargs='+',
        choices=sorted([*CASES, *TOYS, 'zoo']),
        metavar='NAME',
        help="architectures and toys; 'zoo': all toys. Defaults to those of "
        '--against, or all',
    )
    parser.add_argument(
        '--again', action='store_true', help='measure all of them anew'
    )
    parser.add_argument(
        '--limit', type=int, default=600, help='seconds for one model'
    )
    return parser.parse_args(args)


def input_size(name: str) -> Size:
    """Shape of the small input of an architecture."""
    case = CASES[name]
    size = case.size
    if case.scope != 'mmpretrain':
        size = 128
    elif name.startswith(ANY_SIZE):
        size = 64
    return (1, 3, size, size)


def build(name: str) -> Tuple[nn.Module, Size]:
    """A fresh model, always with the same weights, and its input."""
    torch.manual_seed(0)
    random.seed(0)
    if name in TOYS:
        return TOYS[name].make(), TOYS[name].size
    from mmengine.registry import MODELS

    model = MODELS.build(deepcopy(load_architecture(CASES[name])))
    model.init_weights()
    return model, input_size(name)


def measure(name: str) -> Record:
    """All that must stay the same of one model."""
    plain, size = build(name)
    record: Record = {}
    try:
        record.update(describe_graph(plain, size))
        plain, size = build(name)
        mutator = dict(type='DMSMutator', parse_cfg=dict(demo_input=size))
        search = DMSAlgorithm(plain, mutator=mutator)
        record.update(describe_space(search.mutator))
        record.update(describe_masks(search, size))
        record['subnets'] = list(describe_subnets(search, size))
    except DMSError as error:
        record['error'] = str(error)
    return record


def describe_graph(model: nn.Module, size: Size) -> Record:
    """Groups and stages that the tracer finds."""
    mutator = DMSMutator(parse_cfg=dict(demo_input=size))
    run_first(model, size)
    stages = {
        stage.name: [*(block.name for block in stage.blocks), stage.reason]
        for stage in find_stages(model, size)
    }
    groups: Record = {}
    for group in find_groups(mutator.analyzer, (), model):
        layers = sorted(
            f'{layer} {"output" if is_output else "input"}'
            for layer, is_output in group.layers
        )
        groups[group.name] = [*layers, group.reason]
    return dict(found_stages=stages, groups=groups)


def describe_space(mutator: DMSMutator) -> Record:
    """Units, stages, report, resources and widths of layers."""
    table = mutator.table
    units = {
        unit.name: dict(
            channels=unit.num_channels,
            limits=[unit.min_kept, unit.max_kept, unit.step],
            outputs=sorted(_spans(unit.output_related)),
            inputs=sorted(_spans(unit.input_related)),
        )
        for unit in mutator.units
    }
    return dict(
        units=units,
        stages={s.name: list(s.block_names) for s in mutator.depth_units},
        report=str(mutator.report()).splitlines(),
        full=dict(table.full),
        ranges={kind: table.range(kind, 8) for kind in table.full},
        latency_widths=[str(tuple(w)) for w in mutator.layer_widths],
    )


def _spans(channels: Sequence[Any]) -> Iterator[str]:
    for channel in channels:
        name = re.sub(' at 0x[0-9a-f]+', '', str(channel.name))
        yield f'{name}[{channel.start}:{channel.end}]'


def describe_masks(search: DMSAlgorithm, size: Size) -> Record:
    """Outputs and gradients under soft masks, in training mode."""
    mutator, supernet = search.mutator, search.architecture
    revive(supernet, size)
    topk = mutator.topk
    randomize(topk.importance, 0)
    topk.pruning_ratio.data.fill_(0.3)
    topk.project_()
    torch.manual_seed(0)
    supernet.train()
    mutator.masks.mask_grad.zero_()
    mutator.masks.use_soft_masks()
    try:
        image = demo_tensor(supernet, (2, *size[1:]))
        outputs = flatten_tensors(forward_tensors(supernet, image, True))
        loss = sum(
            t.float().square().mean() for t in outputs if t.requires_grad
        )
        loss.backward()
        grads = mutator.masks.mask_grad.split(list(topk.sizes))
        names = [u.name for u in [*mutator.units, *mutator.depth_units]]
        found = dict(
            loss=number(loss),
            gradients={n: summary(g) for n, g in zip(names, grads)},
        )
    except RuntimeError as error:  # a norm may need a larger image
        found = dict(error=str(error).splitlines()[0])
    finally:
        mutator.masks.use_no_masks()
        supernet.eval()
        supernet.zero_grad()
    return dict(soft_masks=found)


def describe_subnets(search: DMSAlgorithm, size: Size) -> Iterator[Record]:
    """Counts, shapes and outputs of random structures, cut out."""
    mutator, supernet = search.mutator, search.architecture
    revive(supernet, size)
    for seed in range(STRUCTURES):
        random.seed(seed)
        randomize(mutator.topk.importance, seed)
        choices = mutator.sample_choices()
        mutator.set_choices(choices)
        structure = mutator.structure()
        subnet = prune(plain_copy(supernet), structure)
        image = demo_tensor(subnet, size)
        with evaluating(supernet):
            masked = summaries(forward_tensors(supernet, image))
        with evaluating(subnet):
            exported = summaries(forward_tensors(subnet, image))
        yield dict(
            choices=choices,
            predicted={k: mutator.resource(k) for k in mutator.table.full},
            macs=count_macs(subnet, size),
            params=sum(p.numel() for p in subnet.parameters()),
            shapes={
                key: 'x'.join(map(str, value.shape))
                for key, value in subnet.state_dict().items()
            },
            structure={k: str(v) for k, v in structure._asdict().items()},
            masked=masked,
            exported=exported,
        )


def revive(supernet: nn.Module, size: Size) -> None:
    """Weights and statistics with which all channels can be told apart."""
    alive = plain_copy(supernet)
    enliven(alive, size)
    state = dict([*alive.named_parameters(), *alive.named_buffers()])
    supernet.load_state_dict(state, strict=False)


def summaries(outputs: Any) -> List[Any]:
    """Every tensor of a model's outputs."""
    return [summary(tensor) for tensor in flatten_tensors(outputs)]


def summary(tensor: Tensor) -> List[Any]:
    """Shape, mean size, and a sum in which every place counts differently."""
    flat = tensor.detach().double().flatten()
    if not flat.numel():
        return [list(tensor.shape)]
    weights = torch.cos(torch.arange(flat.numel(), dtype=torch.float64))
    scale = float(flat.abs().mean())
    mixed = float((flat * weights).mean())
    return [list(tensor.shape), number(scale), number(scale + mixed)]


def number(value: Any) -> float:
    """Six digits."""
    value = value.item() if isinstance(value, Tensor) else value
    return float(f'{value:.6g}')


def path_of(folder: str, name: str) -> str:
    """File of a model."""
    kind = 'toys' if name in TOYS else 'models'
    return osp.join(folder, kind, name.replace('/', '-') + '.json')


def write(path: str, name: str) -> None:
    """Measure one model and write its file, in this process."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    try:
        record = measure(name)
    except Exception as error:  # what a change broke is a difference, too
        traceback.print_exc()
        record = dict(failure=f'{type(error).__name__}: {error}')
    write_text(path, f'{json.dumps(record, indent=1)}\n')


def run_apart(action: Callable[..., None], limit: int, *args: Any) -> None:
    """Run a function in a process of its own, which is ended in time."""
    process = multiprocessing.get_context('fork').Process(
        target=action, args=args
    )
    process.start()
    process.join(limit)
    if process.is_alive():
        process.terminate()
        process.join()


def differences(before: Any, after: Any, where: str = '') -> Iterator[str]:
    """What differs between two records, with the place of each."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            place = f'{where}/{key}'
            if key not in before:
                yield f'{place}: only after: {after[key]}'
            elif key not in after:
                yield f'{place}: only before: {before[key]}'
            else:
                yield from differences(before[key], after[key], place)
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield f'{where}: {before} → {after}'
            return
        for index, pair in enumerate(zip(before, after)):
            yield from differences(*pair, f'{where}/{index}')
    elif not same(before, after):
        yield f'{where}: {before} → {after}'


def same(before: Any, after: Any) -> bool:
    """Whether two plain values are equal, numbers up to the tolerance."""
    if isinstance(before, float) and isinstance(after, (int, float)):
        larger = max(abs(before), abs(after), SMALLEST)
        return before == after or abs(before - after) <= TOLERANCE * larger
    return bool(before == after)


def compare(before: str, after: str, names: Sequence[str]) -> int:
    """Print the differences of two folders; the number of changed models."""
    changed = 0
    for name in names:
        records = []
        for folder in (before, after):
            path = path_of(folder, name)
            if not osp.exists(path):
                records.append({})
                continue
            with open(path) as file:
                records.append(json.load(file))
        found = list(differences(*records))
        changed += bool(found)
        for line in found[:20]:
            print(f'{name}: {line[:400]}')
        if len(found) > 20:
            print(f'{name}: and {len(found) - 20} more')
    print(f'{len(names) - changed} of {len(names)} models are as before')
    return changed


def wanted(args: argparse.Namespace) -> List[str]:
    """Names of the models that are measured or compared."""
    names = [*TOYS, *CASES]
    if args.only:
        chosen = {*args.only, *(TOYS if 'zoo' in args.only else ())}
        return [name for name in names if name in chosen]
    if args.against:
        files = set(glob(osp.join(args.against, '*', '*.json')))
        return [n for n in names if path_of(args.against, n) in files]
    return names


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure what is missing, then compare; 1 if something differs."""
    args = parse_args(arguments)
    names = wanted(args)
    for name in names:
        path = path_of(args.folder, name)
        if args.again or not osp.exists(path):
            run_apart(write, args.limit, path, name)
            print(name, flush=True)
    if not args.against:
        return 0
    return int(compare(args.against, args.folder, names) > 0)


if __name__ == '__main__':
    sys.exit(main())
