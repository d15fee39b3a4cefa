"""Less data for the short training: part of the images, or of the classes.

MOTE's "reduced dataset" (RD) keeps few classes that are unlike each other:
class vectors are means of what a trained network makes of their images,
k-means groups them, and each group gives the class that is farthest from the
other groups' centers. Its authors found random classes to do almost as well.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as ANY_DATASETS
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import DATASETS

TYPE = 'mmrazor.DMSReducedDataset'
"""Name of :func:`reduced_dataset` in configs."""


def class_means(features: Tensor, labels: Tensor) -> Dict[int, Tensor]:
    """Mean feature of each class.

    Args:
        features (Tensor): Of images, [N, ...]; positions of a feature map
            [N, C, H, W] are averaged.
        labels (Tensor): Their classes, [N].

    Returns:
        dict[int, Tensor]: Class → vector [C], classes ascending.
    """
    if features.dim() > 2:
        features = features.flatten(2).mean(2)
    return {
        int(label): features[labels == label].float().mean(0)
        for label in labels.unique()
    }


@torch.no_grad()
def class_vectors(
    model: nn.Module, batches: Any, limit: int = 50
) -> Dict[int, Tensor]:
    """Class means of a classifier's outputs.

    Args:
        model (nn.Module): Trained. One of OpenMMLab is called with
            ``mode='tensor'``, any other one with the images alone.
        batches (Iterable): Pairs of images and labels, or OpenMMLab's
            batches with data samples.
        limit (int): Batches to look at. Defaults to 50.

    Returns:
        dict[int, Tensor]: Class → vector.
    """
    was_training = model.training
    model.eval()
    features, labels = [], []
    for index, batch in enumerate(batches):
        if index == limit:
            break
        found, classes = _features(model, batch)
        features.append(found.cpu())
        labels.append(classes.cpu())
    model.train(was_training)
    return class_means(torch.cat(features), torch.cat(labels))


def _features(model: nn.Module, batch: Any) -> Any:
    """Outputs [B, C, ...] and classes [B] of a batch."""
    if not isinstance(batch, Mapping):
        images, labels = batch
        device = next(model.parameters()).device
        output = model(images.to(device))
    else:
        data = model.data_preprocessor(batch, False)
        samples = data.get('data_samples') or []
        if not samples or not hasattr(samples[0], 'gt_label'):
            raise DMSError(
                '`reduce=clusters` groups classes of whole images, but the '
                'data samples have no `gt_label`: use `reduce=part`.'
            )
        labels = torch.cat([sample.gt_label for sample in samples])
        output = model(data['inputs'], samples, mode='tensor')
    while isinstance(output, (tuple, list)):
        output = output[-1]
    return output, labels


def representative_classes(
    vectors: Mapping[int, Tensor], number: int, seed: int = 0
) -> List[int]:
    """One class of each cluster: the one farthest from the other centers.

    Args:
        vectors (Mapping[int, Tensor]): Class → vector [C].
        number (int): Classes to keep.
        seed (int): Of k-means. Defaults to 0.

    Returns:
        list[int]: Classes, ascending. Fewer than ``number`` if vectors
        coincide.

    Raises:
        DMSError: If there are not so many classes.
    """
    from scipy.cluster.vq import kmeans2

    _check_number(number, len(vectors))
    classes = sorted(vectors)
    points = torch.stack([vectors[c].double() for c in classes]).numpy()
    # Seeded as the legacy generator is: later versions rename the argument.
    state = np.random.RandomState(seed)
    start = _spread_out(points, number, state)
    centers, owner = kmeans2(points, start, minit='matrix', missing='warn')
    chosen = []
    for cluster in sorted(set(owner.tolist())):
        mine = np.flatnonzero(owner == cluster)
        others = np.delete(centers, cluster, axis=0)
        if len(others):
            apart = np.linalg.norm(points[mine][:, None] - others, axis=2)
            best = apart.min(1).argmax()
        else:
            best = np.linalg.norm(points[mine] - centers, axis=1).argmin()
        chosen.append(classes[mine[best]])
    return sorted(chosen)


def _spread_out(
    points: np.ndarray, number: int, state: np.random.RandomState
) -> np.ndarray:
    """First centers, drawn with odds of the squared distance (k-means++)."""
    chosen = [points[state.randint(len(points))]]
    while len(chosen) < number:
        apart = ((points[:, None] - np.stack(chosen)) ** 2).sum(2).min(1)
        odds = apart / apart.sum() if apart.sum() > 0 else None
        chosen.append(points[state.choice(len(points), p=odds)])
    return np.stack(chosen)


def random_classes(classes: int, number: int, seed: int = 0) -> List[int]:
    """Some of ``range(classes)``, ascending.

    Raises:
        DMSError: If there are not so many classes.
    """
    _check_number(number, classes)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(classes, generator=generator)
    return sorted(order[:number].tolist())


def random_part(number: int, fraction: float, seed: int = 0) -> List[int]:
    """Indices of a random part of ``number`` items, ascending, at least one.

    Raises:
        DMSError: If the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise DMSError(f'`subset` must be in (0, 1], got {fraction!r}.')
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(number, generator=generator)
    return sorted(order[: max(round(fraction * number), 1)].tolist())


def _check_number(number: int, classes: int) -> None:
    if not 2 <= number <= classes:
        raise DMSError(
            f'`classes` must be from 2 to {classes}, the number of classes, '
            f'got {number}.'
        )


@DATASETS.register_module(name='DMSReducedDataset')
def reduced_dataset(
    dataset: Dict[str, Any],
    fraction: float = 1.0,
    classes: Optional[Sequence[int]] = None,
    seed: int = 0,
) -> Dataset:
    """A dataset of a config, with a part of its samples.

    Like mmrazor's ``sub_model``, this is a function: it returns the dataset
    itself, so that transforms which mix in other images (mosaic) see the
    same part. Labels keep their numbers.

    Args:
        dataset (dict): The whole dataset.
        fraction (float): Of the samples, at random, in (0, 1]. Defaults
            to 1.
        classes (Sequence[int], optional): Keep only these. Defaults to
            None, all.
        seed (int): Which samples. Defaults to 0.

    Raises:
        DMSError: If the fraction is out of range, or samples have not one
            class each.
    """
    whole = ANY_DATASETS.build(dataset)
    if hasattr(whole, 'full_init'):
        whole.full_init()
    if not hasattr(whole, '__len__'):
        raise DMSError(
            f'`subset`: the dataset {type(whole).__name__} has no length, '
            'so that no part of it can be drawn.'
        )
    indices = list(range(len(whole)))
    if classes is not None:
        wanted = set(classes)
        indices = [i for i in indices if _class_of(whole, i) in wanted]
    part = random_part(len(indices), fraction, seed)
    indices = [indices[i] for i in part]
    if isinstance(whole, BaseDataset):
        whole.get_subset_(indices)
        return whole
    return Subset(whole, indices)


def _class_of(dataset: Dataset, index: int) -> int:
    """Class of a sample, without reading its image where that can be."""
    if isinstance(dataset, BaseDataset):
        info = dataset.get_data_info(index)
        if 'gt_label' in info and np.ndim(info['gt_label']) == 0:
            return int(info['gt_label'])
    raise DMSError(
        f'`classes`: samples of {type(dataset).__name__} have not one '
        '`gt_label` each: use `reduce=part`.'
    )
