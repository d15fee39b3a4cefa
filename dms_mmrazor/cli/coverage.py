"""Measure how much of an architecture is searched, and how exactly."""

import os
import random
import tempfile
from copy import deepcopy
from typing import (
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from dms_mmrazor.cli.short_training import find_recipe, why_not_trained
from dms_mmrazor.errors import DMSError, raise_device_error
from dms_mmrazor.graph import count_macs
from dms_mmrazor.graph.demo import (
    DemoInput,
    demo_tensor,
    enliven,
    evaluating,
    with_tensor_forward,
)
from dms_mmrazor.graph.running import live_tensors
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search import Search
from dms_mmrazor.search.structure_search import Searched
from dms_mmrazor.subnet import prune
from dms_mmrazor.subnet.onnx_export import export_onnx, why_not_onnx
from dms_mmrazor.supernet.difference import compare
from dms_mmrazor.supernet.plain import plain_copy
from dms_mmrazor.supernet.verify import randomize

Size = Tuple[int, ...]


class Agreement(NamedTuple):
    """Masked supernet against exported model, over random structures.

    Attributes:
        structures (int): Their number.
        outputs (float): Largest relative difference of the outputs.
        macs (float): Largest relative difference between the MACs that the
            search predicts and those of the exported model.
        params (float): The same for the parameters.
        onnx (float | None): Largest relative difference between the last
            exported model and its ONNX file in ONNX Runtime; None if that
            is not installed.
        onnx_error (str): Why there is no ONNX file; empty if there is one.
    """

    structures: int
    outputs: float
    macs: float
    params: float
    onnx: Optional[float]
    onnx_error: str


class Coverage(NamedTuple):
    """How much of an architecture is searched.

    Attributes:
        layers (int): Conv and linear layers.
        searched (int): Those with a searched input or output width.
        units (int): Width units.
        stages (int): Depth units.
        channels (int): Elements of the width units.
        blocks (int): Elements of the depth units.
        unsearched (dict[str, list[str]]): Reason → layers of which neither
            width is searched.
        depth_reasons (dict[str, str]): Stage → why its depth is not
            searched.
        macs (float): Of the supernet.
        reachable (tuple[float, float]): Smallest and largest MACs.
        agreement (Agreement): Masked supernet against exported model.
        mmengine (float, optional): mmengine's total for the supernet.
            Defaults to None, not counted.
        mmengine_products (float, optional): mmengine's convolutions, linear
            layers and products of attention, fused ones written out.
            Defaults to None.
        own_loss (bool): Whether the training below minimized the model's
            own loss on made-up data, otherwise the squares of its outputs.
            Defaults to False.
        untrained (str, optional): Why the last exported model did not take
            two steps of a training; empty if it did. Defaults to None, not
            tried.
    """

    layers: int
    searched: int
    units: int
    stages: int
    channels: int
    blocks: int
    unsearched: Dict[str, List[str]]
    depth_reasons: Dict[str, str]
    macs: float
    reachable: Tuple[float, float]
    agreement: Agreement
    mmengine: Optional[float] = None
    mmengine_products: Optional[float] = None
    own_loss: bool = False
    untrained: Optional[str] = None


def measure_coverage(
    architecture: Dict[str, Any],
    size: Size,
    mutator: Optional[Dict[str, Any]] = None,
    structures: int = 10,
    seed: int = 0,
) -> Coverage:
    """Search space, resources and exactness of a search of a model.

    Args:
        architecture (dict): Config of a plain model.
        size (tuple): (B, C, H, W) of its input.
        mutator (dict, optional): Settings of the ``DMSMutator``. Defaults
            to None.
        structures (int): Random structures to compare. Defaults to 10.
        seed (int): Of weights, images and structures. Defaults to 0.

    Raises:
        DMSError: If the model cannot be searched.
    """
    torch.manual_seed(seed)
    plain = MODELS.build(deepcopy(architecture))
    plain.init_weights()
    mmengine_total, products = count_with_mmengine(plain, size)
    algorithm = DMSAlgorithm(
        plain,
        mutator=dict(
            type='DMSMutator',
            parse_cfg=dict(demo_input=size),
            **(mutator or {}),
        ),
    )
    agreement = compare_structures(algorithm, size, structures, seed)
    return _coverage(algorithm, size, agreement)._replace(
        mmengine=mmengine_total, mmengine_products=products
    )


def measure_model(
    build: Callable[[], nn.Module],
    example_inputs: Any,
    mutator: Optional[Dict[str, Any]] = None,
    structures: int = 10,
    seed: int = 0,
) -> Coverage:
    """As :func:`measure_coverage`, of a model without a config.

    Args:
        build (Callable): Makes the model.
        example_inputs (Tensor | Sequence | Mapping): What it is called with.
        mutator (dict, optional): Settings of the ``DMSMutator``. Defaults
            to None.
        structures (int): Random structures to compare. Defaults to 10.
        seed (int): Of weights and structures. Defaults to 0.

    Raises:
        DMSError: If the model cannot be searched.
    """
    torch.manual_seed(seed)
    search = Search(build(), example_inputs, 1.0, 1, mutator=mutator)
    size = search.mutator.analyzer.demo
    agreement = compare_structures(search, size, structures, seed, onnx=False)
    return _coverage(search, size, agreement)


def _coverage(
    algorithm: Searched, size: DemoInput, agreement: Agreement
) -> Coverage:
    """What a search has found, and how its last structure is trained."""
    space = algorithm.mutator
    report = space.report()
    plain = plain_copy(algorithm.architecture)
    recipe = find_recipe(plain, size)
    subnet = prune(plain, space.structure())
    return Coverage(
        layers=len(report.layers),
        searched=len(report.layers) - len(report.unsearched),
        units=len(report.units),
        stages=len(report.stages),
        channels=sum(number for _, number in report.units),
        blocks=sum(number for _, number in report.stages),
        unsearched=_by_reason(report.unsearched),
        depth_reasons=report.stage_reasons,
        macs=space.table.full['macs'],
        reachable=space.table.range('macs'),
        agreement=agreement,
        own_loss=recipe.own_loss,
        untrained=why_not_trained(subnet, recipe),
    )


def _by_reason(layers: Sequence[Any]) -> Dict[str, List[str]]:
    """Names of layers that share a reason."""
    reasons: Dict[str, List[str]] = {}
    for layer in layers:
        parts = dict.fromkeys((layer.inputs, layer.outputs))
        reasons.setdefault('; '.join(parts), []).append(layer.name)
    return reasons


def compare_structures(
    algorithm: Searched,
    size: DemoInput,
    structures: int,
    seed: int = 0,
    onnx: bool = True,
) -> Agreement:
    """Export random structures and compare them with the masked supernet.

    Args:
        algorithm (Searched): A search; its weights change.
        size (tuple | ExampleInputs): (B, C, H, W), or what the model is
            called with.
        structures (int): Number of structures.
        seed (int): Of the structures. Defaults to 0.
        onnx (bool): Whether to compare with an ONNX file, too. Defaults to
            True.
    """
    mutator, supernet = algorithm.mutator, algorithm.architecture
    alive = plain_copy(supernet)
    enliven(alive, size)
    # Not the checkpoint's: some models leave buffers out of it, others look
    # at more than its tensors.
    state = live_tensors(alive)
    for name, tensor in live_tensors(supernet).items():
        if name in state:
            tensor.copy_(state[name])
    image = demo_tensor(alive, size)
    worst = dict(outputs=0.0, macs=0.0, params=0.0)
    for index in range(structures):
        _random_structure(mutator, seed + index)
        subnet = prune(plain_copy(supernet), mutator.structure())
        params = sum(p.numel() for p in subnet.parameters())
        errors = dict(
            outputs=compare(supernet, subnet, image),
            macs=mutator.resource('macs') / count_macs(subnet, size) - 1,
            params=mutator.resource('params') / params - 1,
        )
        worst = {k: max(worst[k], abs(v)) for k, v in errors.items()}
    skipped = dict(onnx=None, onnx_error='not tried')
    written = _try_onnx(subnet, size) if onnx else skipped
    return Agreement(structures, **worst, **written)


def _random_structure(mutator: DMSMutator, seed: int) -> None:
    """Random importances, widths and depths."""
    random_state = random.getstate()
    random.seed(seed)
    randomize(mutator.topk.importance, seed)
    mutator.set_choices(mutator.sample_choices())
    random.setstate(random_state)


def _try_onnx(model: nn.Module, size: Size) -> Dict[str, Any]:
    """Difference of an ONNX file, or why there is none."""
    reason = why_not_onnx(model)
    if reason:
        return dict(onnx=None, onnx_error=reason)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'subnet.onnx')
        try:
            return dict(onnx=export_onnx(model, size, path), onnx_error='')
        except DMSError:
            raise
        except Exception as error:  # whatever torch's exporter may raise
            raise_device_error(error)
            line = str(error).strip().splitlines()[0]
            line = line.replace(f'{folder}{os.sep}', '')
            return dict(onnx=None, onnx_error=line)


def count_with_mmengine(model: nn.Module, size: Size) -> Tuple[float, float]:
    """MACs of a plain model as mmengine counts them.

    mmengine's total contains norms, pooling and resizing, which this
    package does not count, and misses the products within torch's fused
    attention, for which it has no handle.

    Args:
        model (nn.Module): A plain model.
        size (tuple): (B, C, H, W).

    Returns:
        tuple: (total, convolutions, linear layers and matrix products with
        fused attention written out).
    """
    image = demo_tensor(model, (1, *size[1:]))
    total = sum(_operators(model, image).values())
    unfused = deepcopy(model)
    for module in unfused.modules():
        if hasattr(module, 'scaled_dot_product_attention'):
            module.scaled_dot_product_attention = _written_out
    kinds = ('conv', 'linear', 'addmm', 'mm', 'matmul', 'bmm', 'einsum')
    counted = _operators(unfused, image)
    return total, sum(counted.get(kind, 0.0) for kind in kinds)


def _operators(model: nn.Module, image: Tensor) -> Dict[str, float]:
    """mmengine's count by operator."""
    from mmengine.analysis import FlopAnalyzer

    model = with_tensor_forward(deepcopy(model), image.shape)
    with evaluating(model):
        analyzer = FlopAnalyzer(model, image)
        analyzer.unsupported_ops_warnings(False)
        analyzer.uncalled_modules_warnings(False)
        return {k: float(v) for k, v in analyzer.by_operator().items()}


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Optional[Tensor] = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention without dropout in single steps, for the counter alone."""
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(dim=-1) @ value
