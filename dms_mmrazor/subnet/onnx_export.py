"""Write a plain subnet as an ONNX file and check it."""

import importlib.util
import inspect
import logging
import warnings
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from dms_mmrazor.compat.window_batch import any_number_of_windows
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import written_at_once
from dms_mmrazor.graph.demo import (
    demo_tensor,
    evaluating,
    forward_tensors,
)
from dms_mmrazor.graph.model_kind import model_kind_of
from dms_mmrazor.graph.outputs import flatten_tensors

TOLERANCE = 1e-4


class _Network(nn.Module):
    """Image batch in, flat tuple of tensors out."""

    def __init__(
        self, model: nn.Module, forward: Callable[[nn.Module, Tensor], Any]
    ) -> None:
        super().__init__()
        self.model = model
        self._outputs = forward

    def forward(self, image: Tensor) -> List[Tensor]:
        return flatten_tensors(self._outputs(self.model, image))


def export_onnx(
    model: nn.Module,
    input_size: Sequence[int],
    path: str,
    opset: int = 13,
    forward: Optional[Callable[[nn.Module, Tensor], Any]] = None,
) -> Optional[float]:
    """Write a plain model as one ONNX file with a dynamic batch axis.

    Outputs of a detector are those of its head, level by level, before
    boxes are decoded and selected (NMS).

    Args:
        model (nn.Module): A plain model, such as an exported subnet.
        input_size (Sequence[int]): (B, C, H, W) of its input.
        path (str): The file to write; it appears when it is complete.
        opset (int): Version of ONNX's operators. Defaults to 13.
        forward (Callable, optional): ``forward(model, image)`` gives the
            tensors to write. Defaults to None, the model's outputs before
            losses and post-processing (mode 'tensor').

    Returns:
        float | None: Largest difference between the outputs of ONNX Runtime
        and of the model, relative to their scale; None if ONNX Runtime is
        not installed.

    Raises:
        DMSError: If the package onnx is not installed, or the model cannot
            be one ONNX file.
    """
    if forward is None:
        check_onnx(model)
    if importlib.util.find_spec('onnx') is None:
        raise DMSError(
            'writing ONNX files needs the package onnx: pip install onnx '
            'onnxruntime.'
        )
    network = _Network(model, forward or forward_tensors)
    image = demo_tensor(model, input_size)
    with written_at_once(path) as temporary:
        with evaluating(network):
            outputs = network(image)
            _write(network, image, len(outputs), temporary, opset)
        difference = compare_onnx(network, temporary, image)
    if difference is not None and not difference <= TOLERANCE:
        print_log(
            f'{path} differs from the PyTorch model by {difference:.1e} '
            '(relative): do not trust it, and please report the model.',
            logger='current',
            level=logging.WARNING,
        )
    return difference


def check_onnx(model: nn.Module) -> None:
    """Raise a DMSError for a model that cannot be one ONNX file.

    Args:
        model (nn.Module): A plain model, or a supernet of it.
    """
    reason = why_not_onnx(model)
    if reason:
        raise DMSError(f'{type(model).__name__} is not written: {reason}.')


def why_not_onnx(model: nn.Module) -> str:
    """Why a model cannot be one ONNX file; empty if it can.

    Args:
        model (nn.Module): A plain model.
    """
    return model_kind_of(model).why_not_onnx(model)


def _write(
    network: nn.Module, image: Tensor, outputs: int, path: str, opset: int
) -> None:
    """Export by TorchScript, which every supported torch knows."""
    names = ['output'] if outputs == 1 else []
    names = names or [f'output{index}' for index in range(outputs)]
    options: Dict[str, Any] = {}
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        # The newer exporter needs the package onnxscript.
        options['dynamo'] = False
    with warnings.catch_warnings(), any_number_of_windows():
        warnings.simplefilter('ignore', DeprecationWarning)
        torch.onnx.export(
            network,
            (image,),
            path,
            opset_version=opset,
            input_names=['input'],
            output_names=names,
            dynamic_axes={name: {0: 'batch'} for name in ['input', *names]},
            **options,
        )


def compare_onnx(
    network: nn.Module, path: str, image: Tensor
) -> Optional[float]:
    """Run an ONNX file beside its model, on two batch sizes.

    Args:
        network (nn.Module): Gives a list of tensors for an image batch.
        path (str): The ONNX file.
        image (Tensor): Input [B, C, H, W].

    Returns:
        float | None: Largest relative difference; None if ONNX Runtime is
        not installed.
    """
    if importlib.util.find_spec('onnxruntime') is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=['CPUExecutionProvider']
    )
    worst = 0.0
    for batch in (image, torch.cat([image, image.flip(-1)])):
        with evaluating(network):
            expected = network(batch)
        found = session.run(None, {'input': batch.cpu().numpy()})
        for ours, theirs in zip(expected, found):
            worst = max(worst, _difference(ours, torch.from_numpy(theirs)))
    return worst


def _difference(expected: Tensor, found: Tensor) -> float:
    """max |a - b| / max |a|; inf if the shapes differ."""
    expected = expected.detach().cpu()
    if expected.shape != found.shape:
        return float('inf')
    scale = max(float(expected.abs().max()), 1e-6)
    return float((expected - found).abs().max()) / scale
