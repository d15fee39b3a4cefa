import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.ranking import reduced_data
from dms_mmrazor.ranking.reduced_network import (
    fewer_blocks,
    lower_resolution,
)
from dms_mmrazor.subnet import (
    StageStructure,
    Structure,
)


def test_one_class_of_each_cluster_the_farthest_from_the_others():
    # Two clusters on a line; 0 and 5 are the outer ones.
    places = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]
    vectors = {c: torch.tensor([x, 0.0]) for c, x in enumerate(places)}
    for seed in range(4):
        found = reduced_data.representative_classes(vectors, 2, seed)
        assert found == [0, 5]
    with pytest.raises(DMSError, match='classes'):
        reduced_data.representative_classes(vectors, 7)


def test_class_vectors_are_means_of_outputs():
    images = torch.tensor([[1.0], [3.0], [10.0]])
    labels = torch.tensor([4, 4, 2])
    model = nn.Linear(1, 2, bias=False)
    nn.init.constant_(model.weight, 1.0)
    found = reduced_data.class_vectors(model, [(images, labels)])
    assert found[2].tolist() == [10, 10] and found[4].tolist() == [2, 2]
    maps = torch.arange(8.0).view(2, 1, 2, 2)
    means = reduced_data.class_means(maps, torch.tensor([0, 1]))
    assert means[0].tolist() == [1.5]


def test_random_parts_repeat_and_cover():
    part = reduced_data.random_part(50, 0.1, seed=1)
    assert len(part) == 5 and part == sorted(set(part))
    assert part == reduced_data.random_part(50, 0.1, seed=1)
    assert part != reduced_data.random_part(50, 0.1, seed=2)
    assert reduced_data.random_part(5, 1.0) == [0, 1, 2, 3, 4]
    assert len(reduced_data.random_classes(10, 4)) == 4
    with pytest.raises(DMSError, match='subset'):
        reduced_data.random_part(5, 0)


def structure(kept):
    names = tuple(f'stage.{i}' for i in range(5))
    stage = StageStructure('stage', names, tuple(f'stage.{i}' for i in kept))
    return Structure((), (stage,), 1, 1, {}, {})


def test_fewer_of_the_kept_blocks():
    found = fewer_blocks(structure([1, 2, 4]), 0.5)
    assert found.stages[0].kept == ('stage.1', 'stage.2')
    assert not fewer_blocks(structure([]), 0.5).stages[0].kept
    assert fewer_blocks(structure([3]), 0.1).stages[0].kept == ('stage.3',)
    with pytest.raises(DMSError, match='repeats'):
        fewer_blocks(structure([1]), 2)


def test_a_model_sees_smaller_images():
    model = nn.Identity()
    lower_resolution(model, 0.5)
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert model(image).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    detector = nn.Module()
    detector.bbox_head = nn.Identity()
    with pytest.raises(DMSError, match='pipelines'):
        lower_resolution(detector, 0.5)
    lower_resolution(detector, 1)
