"""Search spaces shared by the tests of the core."""

import random
from typing import List, NamedTuple, Sequence

import pytest

from dms_mmrazor.core import Dim, ResourceModel, Term

KERNELS = {'stem': 49.0, 'conv2': 9.0}
"""Weights per pair of channels of the layers that are not 1x1."""


class Space(NamedTuple):
    """MACs and parameters of a network and its units."""

    macs: ResourceModel
    params: ResourceModel
    sizes: List[int]
    num_blocks: int


def unit(index: int) -> Dim:
    return Dim(units=((index, 1.0),))


def bottleneck_space(depths: Sequence[int], width: int = 64) -> Space:
    """A ResNet of bottlenecks: a unit per stage and two per block."""
    sizes = [width]
    macs = [Term('stem', 49 * 112**2, (Dim(3.0), unit(0)))]
    inputs, block = unit(0), 0
    for stage, depth in enumerate(depths):
        area = (56 // 2**stage) ** 2
        sizes.append(4 * width * 2**stage)
        outputs = unit(len(sizes) - 1)
        for index in range(depth):
            sizes += [width * 2**stage] * 2
            first, second = unit(len(sizes) - 2), unit(len(sizes) - 1)
            removable = block if index else None
            name = f'stage{stage}.{index}'
            # The 3x3 convolution of a stage's first block has stride 2.
            larger = area * (4 if stage and index == 0 else 1)
            if index == 0:
                macs.append(Term(f'{name}.down', area, (inputs, outputs)))
            macs += [
                Term(f'{name}.conv1', larger, (inputs, first), removable),
                Term(f'{name}.conv2', 9 * area, (first, second), removable),
                Term(f'{name}.conv3', area, (second, outputs), removable),
            ]
            block += bool(index)
            inputs = outputs
    macs.append(Term('head', 1.0, (inputs, Dim(1000.0))))
    params = [
        term._replace(coefficient=KERNELS.get(term.layer.split('.')[-1], 1.0))
        for term in macs
    ]
    return Space(
        ResourceModel(macs, len(sizes), block),
        ResourceModel(params, len(sizes), block),
        sizes,
        block,
    )


@pytest.fixture(scope='session')
def resnet50() -> Space:
    return bottleneck_space((3, 4, 6, 3))


@pytest.fixture
def rng() -> random.Random:
    return random.Random(0)
