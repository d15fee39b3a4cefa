"""Latency tables: measured once on a device, used by any search for it."""

from typing import Dict, List, NamedTuple, Tuple

from dms_mmrazor.core import LatencyFit

GOOD = 0.1
"""Mean error of good predictions, relative."""

Point = Tuple[int, int, float]
"""Input channels, output channels, milliseconds."""


class Device(NamedTuple):
    """Where a table was measured.

    Attributes:
        type (str): 'cpu' or 'cuda'.
        name (str): Model name of the CPU or GPU.
        threads (int): Threads of torch on the CPU.
        torch (str): Version of torch.
    """

    type: str
    name: str
    threads: int
    torch: str

    def __str__(self) -> str:
        threads = 'thread' if self.threads == 1 else 'threads'
        return f'{self.name} ({self.type}, {self.threads} {threads})'


class LayerKind(NamedTuple):
    """Layers that cost the same at the same widths.

    Attributes:
        name (str): Type, kernel, widths, output size and what follows.
        layers (tuple[str]): Names of the layers.
        channels (tuple[int, int]): Input and output channels, unpruned.
        fit (LatencyFit): l in milliseconds and f of Eq. 9, for each of the
            layers, with the errors over the points.
        points (tuple[Point]): What was measured: medians by widths.
    """

    name: str
    layers: Tuple[str, ...]
    channels: Tuple[int, int]
    fit: LatencyFit
    points: Tuple[Point, ...]


class LatencyTable(NamedTuple):
    """Latencies of the layers of a supernet on a device.

    Attributes:
        device (Device): Where it was measured.
        input_size (tuple): (B, C, H, W); latencies are of the whole batch.
        divisor (int): Measured widths are multiples of it, or full.
        supernet (float): Measured latency of the supernet in milliseconds.
        rounds (int): Measurements of which the medians were taken.
        held_out (dict): 'structures' that no fit has seen, and the 'mean'
            and 'worst' relative error of their predictions.
        rounding (dict[int, float]): Divisor → measured over predicted
            latency of structures whose widths are multiples of it.
        kinds (tuple[LayerKind]): The layers.
    """

    device: Device
    input_size: Tuple[int, ...]
    divisor: int
    supernet: float
    rounds: int
    held_out: Dict[str, float]
    rounding: Dict[int, float]
    kinds: Tuple[LayerKind, ...]

    @property
    def fits(self) -> Dict[str, LatencyFit]:
        """Latency of each layer by name."""
        return {name: k.fit for k in self.kinds for name in k.layers}

    @property
    def best_divisor(self) -> int:
        """Smallest divisor whose widths are not slower than the others'."""
        fastest = min(self.rounding.values(), default=1.0)
        good = [d for d, r in self.rounding.items() if r <= 1.05 * fastest]
        return min(good, default=self.divisor)


def describe_latency_table(table: LatencyTable) -> List[str]:
    """Lines that show a table and how well it predicts."""
    batch = 'x'.join(str(n) for n in table.input_size)
    total = sum(kind.fit.full * len(kind.layers) for kind in table.kinds)
    lines = [
        f'{table.device}, torch {table.device.torch}, input {batch}, widths '
        f'by {table.divisor}, medians of {table.rounds}',
        f'Supernet: {table.supernet:.3f} ms measured, {total:.3f} ms '
        'predicted.',
        f'{"ms":>9} {"share":>6} {"const":>6} {"in":>5} {"out":>5} '
        f'{"both":>5} {"error":>6} {"worst":>6}  layers',
    ]
    order = sorted(table.kinds, key=lambda k: -k.fit.full * len(k.layers))
    for kind in order:
        full, shares, error, worst = kind.fit
        share = full * len(kind.layers) / total
        row = ' '.join(f'{c:>5.2f}' for c in shares)
        lines.append(
            f'{full:>9.4f} {share:>6.1%}  {row} {error:>6.1%} {worst:>6.1%}  '
            f'{len(kind.layers)}x {kind.name}'
        )
    return [*lines, *_summary(table)]


def _summary(table: LatencyTable) -> List[str]:
    """How well a table predicts, and which widths are fast."""
    held_out = table.held_out
    warning = []
    if held_out['mean'] > GOOD:
        warning.append(
            f'WARNING: predictions are off by more than {GOOD:.0%}: measure '
            'again when the machine is idle, with more `--rounds`.'
        )
    rounding = ', '.join(f'{d}: {r:.2f}' for d, r in table.rounding.items())
    return [
        f'Latency of {held_out["structures"]} structures that no fit has '
        f'seen: mean error {held_out["mean"]:.1%}, worst '
        f'{held_out["worst"]:.1%}.',
        f'Measured over predicted, widths as multiples of {rounding}: '
        f'`ResourceHook.divisor={table.best_divisor}` exports widths that '
        'are fast here.',
        *warning,
    ]
