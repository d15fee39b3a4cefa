"""The short training of one candidate, in a loop of one's own.

:class:`PlainRecipe` trains any model by functions of its user; what it
measures with (:class:`Meter`, :func:`losses_on_line`) serves the recipes of
configs as well.
"""

import math
import time
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sized,
)

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dms_mmrazor.errors import DMSError
from dms_mmrazor.ranking.scores import Trajectory, divergence

PERIODS = 10
"""Losses are kept for so many parts of a training, or more."""

POINTS = 10
"""MOTE's G: the line from initial to trained weights in so many steps."""

LANDSCAPE_BATCHES = 4

State = Dict[str, Tensor]
Build = Callable[[], nn.Module]
Loss = Callable[[nn.Module, Any], Tensor]


class DivergedError(Exception):
    """A training that needs not go on; the message says why."""


class Meter:
    """Mean loss and seconds of each period of a training.

    Seconds are those of the processor where the model is on a CPU, so that
    other work on the machine does not count, and those of the clock
    elsewhere.

    Args:
        iterations (int): Of the whole training.
        epochs (float): Of the whole training; a period is never longer
            than an epoch.
        device (torch.device): Of the model.

    Raises:
        DMSError: If there is no iteration.
    """

    def __init__(
        self, iterations: int, epochs: float, device: torch.device
    ) -> None:
        if iterations < 1:
            raise DMSError(
                f'`epochs={epochs:g}` of the data are no iteration: take '
                'more epochs or a larger subset.'
            )
        whole = max(math.ceil(epochs), 1)
        periods = whole * math.ceil(PERIODS / whole)
        self.periods = min(periods, iterations)
        self.iterations = iterations
        self.device = device
        self.losses: List[float] = []
        self.seconds: List[float] = []
        self.first: Optional[float] = None
        self._done = 0
        self._in_period = 0
        self._sum: Optional[Tensor] = None
        self._started = self.now()

    def now(self) -> float:
        """Seconds since some moment."""
        if self.device.type == 'cpu':
            return time.process_time()
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def restart(self) -> None:
        """The training begins now."""
        self._started = self.now()

    def add(self, loss: Tensor) -> None:
        """Count an iteration.

        Args:
            loss (Tensor): Its task loss, a scalar.

        Raises:
            DivergedError: If the mean loss of a period is not finite, or has
                risen to ten times the first one.
        """
        loss = loss.detach()
        if self.first is None:
            self.first = float(loss)
        self._sum = loss if self._sum is None else self._sum + loss
        self._done += 1
        self._in_period += 1
        period = self.periods * self._done // self.iterations
        if period > len(self.losses):
            self._close()

    def _close(self) -> None:
        now = self.now()
        mean = float(self._sum) / self._in_period
        self.losses.append(mean)
        self.seconds.append(now - self._started)
        self._started, self._sum, self._in_period = now, None, 0
        reason = divergence(self.first, mean)
        if reason:
            portion = self._done / self.iterations
            raise DivergedError(
                f'{reason} after {portion:.0%} of the training'
            )


def trained_state(model: nn.Module) -> State:
    """Copies of the parameters that are trained, by name."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def losses_on_line(
    model: nn.Module,
    start: Mapping[str, Tensor],
    loss_of: Callable[[nn.Module], Tensor],
    points: int = POINTS,
) -> List[float]:
    """Losses at θ_g = (1 − g/G) θ_start + (g/G) θ_now for g = 0 … G.

    In training mode, so that norms use the statistics of the batch: running
    ones belong to the trained weights alone. Random layers draw the same at
    all points. The model stays as it was.

    Args:
        model (nn.Module): Trained.
        start (Mapping[str, Tensor]): Of :func:`trained_state`, before the
            training.
        loss_of (Callable): Gives the loss on the same batches.
        points (int): G. Defaults to 10.

    Returns:
        list[float]: G + 1 losses.
    """
    was_training = model.training
    parameters = dict(model.named_parameters())
    end = {name: parameters[name].detach().clone() for name in start}
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    model.train()
    losses = []
    devices = sorted({p.device.index or 0 for p in end.values() if p.is_cuda})
    for point in range(points + 1):
        for name, first in start.items():
            parameters[name].copy_(first.lerp(end[name], point / points))
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            losses.append(float(loss_of(model)))
    for name, last in end.items():
        parameters[name].copy_(last)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    model.train(was_training)
    return losses


class PlainRecipe:
    """Trains a plain model briefly, by functions of its user.

    Args:
        loader (Iterable): Batches of one epoch, anew at each iteration
            over it; with a length, unless ``iterations`` is given.
        loss (Callable): (model, batch) → loss, a scalar.
        optimizer (Callable): Model → optimizer.
        epochs (float): Length of the training, may be a part of an epoch.
            Defaults to 1.
        evaluate (Callable, optional): Model → metric, higher is better.
            Defaults to None: the score ``accuracy`` is not to be had.
        scheduler (Callable, optional): (optimizer, iterations) → scheduler
            whose ``step`` is called after each iteration. Defaults to None,
            a constant learning rate.
        landscape_batches (int): Batches of the losses between initial and
            trained weights; 0 leaves them out. Defaults to 4.
        device (str | torch.device): Defaults to 'cpu'.

    Raises:
        DMSError: If the loader has no length or no batch.
    """

    def __init__(
        self,
        loader: Iterable,
        loss: Loss,
        optimizer: Callable[[nn.Module], Optimizer],
        epochs: float = 1,
        evaluate: Optional[Callable[[nn.Module], float]] = None,
        scheduler: Optional[Callable[[Optimizer, int], Any]] = None,
        landscape_batches: int = LANDSCAPE_BATCHES,
        device: Any = 'cpu',
    ) -> None:
        if not isinstance(loader, Sized) or not len(loader):
            raise DMSError(
                '`loader` must have a length of one or more batches, so that '
                'all candidates train equally long.'
            )
        self.loader = loader
        self.loss = loss
        self.optimizer = optimizer
        self.epochs = epochs
        self.evaluate = evaluate
        self.scheduler = scheduler
        self.landscape_batches = landscape_batches
        self.device = torch.device(device)

    @property
    def settings(self) -> Dict[str, Any]:
        """What results depend on and plain data can say."""
        return {
            'epochs': self.epochs,
            'batches': len(self.loader),
            'landscape_batches': self.landscape_batches,
        }

    def __call__(self, build: Build, seed: int) -> Trajectory:
        """Train one candidate.

        Args:
            build (Callable): Makes the candidate with new weights.
            seed (int): Of weights, order and augmentation.

        Raises:
            DMSError: If the candidate is no function.
        """
        if not callable(build):
            raise DMSError(
                f'PlainRecipe trains what a function makes, got {build!r}: '
                'give `lambda: apply_structure(build(), path)`.'
            )
        torch.manual_seed(seed)
        model = build().to(self.device)
        iterations = round(self.epochs * len(self.loader))
        meter = Meter(iterations, self.epochs, self.device)
        start = trained_state(model) if self.landscape_batches else {}
        batches: List[Any] = []
        try:
            self._train(model, meter, batches)
        except DivergedError as reason:
            return Trajectory(
                meter.losses,
                meter.seconds,
                costs={'training': sum(meter.seconds)},
                diverged=str(reason),
            )
        return self._measured(model, meter, start, batches)

    def _train(
        self, model: nn.Module, meter: Meter, batches: List[Any]
    ) -> None:
        """Train to the end; keep the first batches for the landscape."""
        optimizer = self.optimizer(model)
        scheduler = None
        if self.scheduler is not None:
            scheduler = self.scheduler(optimizer, meter.iterations)
        model.train()
        meter.restart()
        done = 0
        while done < meter.iterations:
            for batch in self.loader:
                if len(batches) < self.landscape_batches:
                    batches.append(batch)
                loss = self.loss(model, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                meter.add(loss)
                done += 1
                if done == meter.iterations:
                    return

    def _measured(
        self,
        model: nn.Module,
        meter: Meter,
        start: State,
        batches: List[Any],
    ) -> Trajectory:
        """What is measured after the training, each with its cost."""
        costs = {'training': sum(meter.seconds)}
        landscape: List[float] = []
        metric = None
        if batches:
            begun = meter.now()
            landscape = losses_on_line(
                model, start, lambda m: mean_loss(m, batches, self.loss)
            )
            costs['landscape'] = meter.now() - begun
        if self.evaluate is not None:
            begun = meter.now()
            metric = float(self.evaluate(model))
            costs['evaluation'] = meter.now() - begun
        return Trajectory(
            meter.losses, meter.seconds, landscape, metric, costs
        )


def mean_loss(model: nn.Module, batches: Iterable, loss: Loss) -> Tensor:
    """Mean of the losses of some batches."""
    return torch.stack([loss(model, batch) for batch in batches]).mean()


def loss_of_data(model: nn.Module, data: Any) -> Tensor:
    """Loss of a model of mmengine on what its preprocessor has made."""
    if isinstance(data, Mapping):
        losses = model(**data, mode='loss')
    else:
        losses = model(*data, mode='loss')
    return model.parse_losses(losses)[0]
