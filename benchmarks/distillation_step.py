"""Cost of a search step with a teacher against distillation alone.

A small Llama learns from a copy of itself: as it is, and while it is searched
for 80 % of its parameters. Both run in one process, in turn, so that a
drifting machine hits both alike. A step is forward passes of student and
teacher, loss, backward pass and optimizer, in a search also the step of the
structure. Time is the median over rounds of the ratio of the same round; bytes
are what autograd keeps for the backward pass, each storage once, without the
parameters themselves.

    python benchmarks/distillation_step.py --cpu-time

The bar is 1.05 for both.
"""

from copy import deepcopy
from typing import Callable, Dict, Tuple

import torch
from common import (
    Row,
    interleave,
    median,
    parser,
    ratio,
    report,
)
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from dms_mmrazor import Search
from dms_mmrazor.plugins.transformers.memory import kept_bytes
from dms_mmrazor.search.distillation import distillation_loss

LENGTH = 10_000
"""Steps of the search that these are the first of."""

SIZES = {
    'llama-6m': (256, 688, 6, 8, 4096),
    'llama-25m': (512, 1376, 6, 8, 8192),
}
"""Width, hidden width of the FFN, layers, heads, tokens."""


def build(name: str) -> nn.Module:
    """A Llama with random weights."""
    width, hidden, layers, heads, tokens = SIZES[name]
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            vocab_size=tokens,
            tie_word_embeddings=True,
        )
    ).train()


Loss = Callable[[], Tensor]


def losses(model: nn.Module, tokens: Tensor) -> Dict[str, Tuple[Loss, ...]]:
    """Loss and the rest of a step, of distillation and of a search.

    Args:
        model (nn.Module): The whole model.
        tokens (Tensor): [B, L].
    """
    plain, searched = deepcopy(model), deepcopy(model)
    teacher = deepcopy(model).eval().requires_grad_(False)
    search = Search(
        searched,
        dict(input_ids=tokens[:1]),
        {'params': 0.8},
        total_steps=LENGTH,
        distill=dict(),
    )
    searched.train()

    def distilled() -> Tensor:
        with torch.no_grad():
            wanted = teacher(input_ids=tokens, use_cache=False).logits
        found = plain(input_ids=tokens, use_cache=False).logits
        return distillation_loss(found, wanted)

    def searching() -> Tensor:
        return search.distill(input_ids=tokens, use_cache=False)[1]

    return {
        'distillation': (distilled, lambda: None, plain),
        'search': (searching, search.step, searched),
    }


def as_step(
    loss: Loss, finish: Callable[[], object], model: nn.Module
) -> Callable[[], None]:
    """A whole step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        finish()

    return step


def measure(name: str, batch: int, window: int, args: object) -> Row:
    """One row of the table."""
    torch.manual_seed(0)
    model = build(name).to(args.device)
    tokens = torch.randint(SIZES[name][-1], (batch, window))
    parts = losses(model, tokens.to(args.device))
    steps = {key: as_step(*part) for key, part in parts.items()}
    times = interleave(steps, args)
    kept = {key: kept_bytes(p[0], p[2]) for key, p in parts.items()}
    return {
        'model': name,
        'tokens': f'{batch}x{window}',
        'params': sum(p.numel() for p in model.parameters()),
        'distillation_s': median(times['distillation']),
        'search_time': ratio(times, 'search', 'distillation'),
        'search_bytes': kept['search'] / kept['distillation'],
    }


def main() -> None:
    """Print the table and write it as JSON."""
    arguments = parser(__doc__)
    arguments.add_argument(
        '--models', nargs='+', default=['llama-6m'], choices=list(SIZES)
    )
    arguments.add_argument('--batch', type=int, default=16)
    arguments.add_argument('--window', type=int, default=128)
    args = arguments.parse_args()
    rows = [
        measure(name, args.batch, args.window, args) for name in args.models
    ]
    report('distillation_step', rows, args)


if __name__ == '__main__':
    main()
