"""Cost of a search step against a plain training step of the same model.

Variants run in one process, in turn, so that a drifting machine hits all
alike: first the search and the plain model, then the others and the plain
model. A step is the model's `train_step` with its optimizer, and in a search
the work for targets, importances and limits before and after it. Time is the
median over rounds of the ratio to the plain step of the same round; bytes are
what autograd keeps for the backward pass, each storage once, without the
parameters themselves.

    python benchmarks/search_step.py --models resnet50 mobilenet_v2

`masked` is the same search with its masks on activations, `fisher` MMRazor's
GroupFisher (where it can search the model), `removal` a step of a search by
`signal='removal'` that measures, which one of ten does. On a GPU: AMP,
channels-last, and peak memory.
"""

import os.path as osp
import sys
from copy import deepcopy
from typing import Any, Callable, Dict, Optional, Union

import torch
from common import (
    Row,
    interleave,
    median,
    parser,
    ratio,
    report,
    synchronize,
)
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from models import CASES, Case, build, make_batch, make_search, shape
from torch import Tensor, nn

from dms_mmrazor.engine.optimizers import DMSOptimWrapperConstructor
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.plugins.transformers.memory import kept_bytes
from dms_mmrazor.search.loss_scale import scale_of

sys.path.append(osp.join(osp.dirname(osp.abspath(__file__)), '..', 'tests'))
from unfolded import unfold  # noqa: E402

MODELS_OF_THE_BAR = (
    'resnet50',
    'mobilenet_v2',
    'efficientnet_b0',
    'deit_tiny',
    'yolov8_n',
)
SGD = dict(type='SGD', lr=1e-4, momentum=0.9, weight_decay=1e-4)

LENGTH = 10_000
"""Steps of the search that these are the first of."""


class Step:
    """A training step of a model, with its optimizer.

    Args:
        model (nn.Module): A plain model or a search.
        data (dict): The batch.
        amp (bool): Whether to train in mixed precision.
    """

    def __init__(
        self, model: nn.Module, data: Dict[str, Any], amp: bool
    ) -> None:
        self.model = model
        self.data = data
        cfg = dict(type='OptimWrapper', optimizer=SGD)
        if amp:
            cfg = dict(cfg, type='AmpOptimWrapper', loss_scale='dynamic')
        self.search = isinstance(model, DMSAlgorithm)
        if self.search:
            self.wrapper = DMSOptimWrapperConstructor(cfg)(model)
            model.set_constraints({'macs': 1.0})
            model.structure.step.set_length(LENGTH)
        else:
            optimizer = torch.optim.SGD(
                model.parameters(),
                **{k: v for k, v in SGD.items() if k != 'type'},
            )
            cfg = {**cfg, 'optimizer': optimizer}
            self.wrapper = OPTIM_WRAPPERS.build(cfg)
        # GroupFisher asks for the iteration there.
        MessageHub.get_current_instance().update_info('iter', 1)

    def __call__(self) -> None:
        """One iteration of mmengine's loop."""
        if self.search:
            full = self.model.mutator.table.full['macs']
            self.model.set_targets({'macs': full / 2})
            if self.model.structure.redundancy is not None:
                # As if it were the first step: that one measures.
                first = torch.tensor(0)
                self.model.structure.redundancy.set_extra_state(first)
            scale = self.loss_scale()
        self.model.train_step(self.data, self.wrapper)
        if self.search:
            self.model.finish_step(scale)

    def loss_scale(self) -> Optional[Tensor]:
        """Loss scale of AMP, as ResourceHook reads it."""
        if not isinstance(self.wrapper, AmpOptimWrapper):
            return None
        importance = self.model.mutator.topk.importance
        return scale_of(self.wrapper.loss_scaler, importance)


def saved_bytes(step: Step) -> int:
    """Bytes that autograd keeps between forward and backward."""
    model = step.model
    data = model.data_preprocessor(deepcopy(step.data), True)

    def run() -> Tensor:
        with step.wrapper.optim_context(model):
            losses = model(**data, mode='loss')
            return sum(v for k, v in losses.items() if 'loss' in k)

    return kept_bytes(run, model)


def peak_bytes(step: Step) -> int:
    """Peak memory of a step on a GPU."""
    torch.cuda.reset_peak_memory_stats()
    step()
    synchronize('cuda')
    return torch.cuda.max_memory_allocated()


def synchronizations(step: Callable[[], None]) -> int:
    """How often a step on a GPU makes the host wait, in torch's own count."""
    import warnings

    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            step()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return sum('synchroniz' in str(w.message) for w in caught)


def make_fisher(plain: nn.Module, case: Case) -> nn.Module:
    """MMRazor's GroupFisher on the same model; it never prunes here.

    Its step records inputs and gradients of all layers by hooks and adds up
    their products; the pruning itself, once in ``interval`` steps, is left
    out.
    """
    from mmrazor.implementations.pruning import group_fisher  # noqa: F401

    units = dict(
        type='GroupFisherChannelUnit',
        default_args=dict(normalization_type='flops'),
    )
    return MODELS.build(
        dict(
            type='mmrazor.GroupFisherAlgorithm',
            architecture=deepcopy(plain),
            interval=10**9,
            mutator=dict(
                type='GroupFisherChannelMutator',
                parse_cfg=dict(
                    type='ChannelAnalyzer',
                    tracer_type='FxTracer',
                    demo_input=(1, 3, case.size, case.size),
                ),
                channel_unit_cfg=units,
            ),
        )
    ).train()


def variants(
    plain: nn.Module, case: Case, wanted: Any
) -> Dict[str, nn.Module]:
    """The plain model and what searches it."""
    found = {'plain': plain, 'search': make_search(deepcopy(plain), case)}
    if 'masked' in wanted:
        found['masked'] = unfold(deepcopy(found['search']))
    if 'removal' in wanted:
        found['removal'] = make_search(deepcopy(plain), case, 'removal')
    return found


def fisher_step(
    plain: nn.Module, case: Case, device: str, amp: bool
) -> Union[Step, str]:
    """A step of GroupFisher that runs, or why there is none."""
    try:
        model = make_fisher(plain, case)
        if device != 'cpu':
            model.to(device, memory_format=torch.channels_last)
        if not model.mutator.mutable_units:
            return 'finds no unit'
        step = Step(model, make_batch(case, device), amp)
        step()
    except Exception as error:  # whatever MMRazor does not support
        text = (str(error).strip().splitlines() or [''])[0]
        return f'fails: {type(error).__name__}: {text}'[:120]
    return step


def measure(name: str, args: Any) -> Row:
    """One row of the table."""
    case, device = CASES[name], args.device
    torch.manual_seed(0)
    plain = build(case)
    models = variants(plain, case, args.against)
    data = make_batch(case, device)
    if device != 'cpu':
        for model in models.values():
            model.to(device, memory_format=torch.channels_last)
    if args.compile:
        for model in models.values():
            model.train_step = torch.compile(model.train_step)
    amp = device != 'cpu' and not args.fp32
    steps = {key: Step(model, data, amp) for key, model in models.items()}
    reasons = {}
    if 'fisher' in args.against:
        step = fisher_step(plain, case, device, amp)
        (reasons if isinstance(step, str) else steps)['fisher'] = step
    # Apart from the others: what these allocate changes what a step costs
    # that comes after theirs.
    pair = {key: steps[key] for key in ('plain', 'search')}
    times = interleave(pair, args)
    rest = {key: step for key, step in steps.items() if key != 'search'}
    others = interleave(rest, args) if args.against else {}
    saved = {key: saved_bytes(step) for key, step in steps.items()}
    weights = sum(p.numel() * p.element_size() for p in plain.parameters())
    row: Row = {
        'model': name,
        'input': '{}x{}^2'.format(*shape(case, device)),
        'plain_s': median(times['plain']),
        'search_time': ratio(times, 'search', 'plain'),
        'search_bytes': saved['search'] / saved['plain'],
        'extra_bytes_per_weight_byte': (saved['search'] - saved['plain'])
        / weights,
    }
    for key in args.against:
        known = key in others
        row[f'{key}_time'] = (
            ratio(others, key, 'plain') if known else reasons[key]
        )
        row[f'{key}_bytes'] = saved[key] / saved['plain'] if known else None
    if 'fisher' in args.against:
        found = steps['fisher'].model.mutator if 'fisher' in steps else None
        row['fisher_units'] = len(found.mutable_units) if found else 0
        row['search_units'] = len(models['search'].mutator.units)
    if device != 'cpu':
        row.update(on_gpu(steps))
    return row


def on_gpu(steps: Dict[str, Step]) -> Row:
    """What only a GPU shows."""
    plain, search = steps['plain'], steps['search']
    return {
        'peak_memory': peak_bytes(search) / peak_bytes(plain),
        'synchronizations': synchronizations(search),
        'plain_synchronizations': synchronizations(plain),
    }


def main() -> None:
    """Print the table and write it as JSON."""
    arguments = parser(__doc__)
    arguments.add_argument(
        '--models', nargs='+', default=MODELS_OF_THE_BAR, choices=list(CASES)
    )
    arguments.add_argument(
        '--against',
        nargs='*',
        default=['masked', 'fisher'],
        choices=['masked', 'fisher', 'removal'],
        help='what else to measure',
    )
    arguments.add_argument(
        '--fp32', action='store_true', help='no AMP on a GPU'
    )
    arguments.add_argument(
        '--compile', action='store_true', help='steps through torch.compile'
    )
    args = arguments.parse_args()
    report('search_step', [measure(name, args) for name in args.models], args)


if __name__ == '__main__':
    main()
