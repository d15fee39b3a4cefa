"""Which metric of an evaluation judges a subnet, and in which direction."""

import re
from typing import Any, Mapping, Optional

from mmengine.hooks import CheckpointHook

from dms_mmrazor.errors import DMSError

_LOWER = frozenset(
    'loss perplexity ppl nll error mae mse rmse mape epe nme wer cer'.split()
)
_HIGHER = frozenset('ap ar pck f1 recall dice iou psnr ssim kappa'.split())
"""Words of keys beside those that mmengine knows."""


def chosen_metric(
    metrics: Mapping[str, Any], wanted: Optional[str], option: str
) -> float:
    """The metric of an evaluation that counts.

    Args:
        metrics (Mapping[str, Any]): Of the evaluation, by key.
        wanted (str, optional): Its key. None: the first one.
        option (str): What sets it, for messages.

    Raises:
        DMSError: If the evaluation has no such metric.
    """
    return float(metrics[_chosen_key(metrics, wanted, option)])


def chosen_score(
    metrics: Mapping[str, Any],
    wanted: Optional[str],
    lower_is_better: Optional[bool],
    option: str,
) -> float:
    """The metric of an evaluation that counts, turned so that more is better.

    Args:
        metrics (Mapping[str, Any]): Of the evaluation, by key.
        wanted (str, optional): Its key. None: the first one.
        lower_is_better (bool, optional): Its direction. None: by its name.
        option (str): What sets it, for messages.

    Raises:
        DMSError: If the evaluation has no such metric, or its name does not
            tell its direction.
    """
    key = _chosen_key(metrics, wanted, option)
    if lower_is_better is None:
        lower_is_better = is_lower_better(key)
    return -float(metrics[key]) if lower_is_better else float(metrics[key])


def is_lower_better(key: str) -> bool:
    """Direction of a metric by its name, as mmengine's `save_best` reads it.

    Args:
        key (str): As 'coco/bbox_mAP' or 'perplexity'.

    Raises:
        DMSError: If the name does not tell.
    """
    words = set(re.split(r'[^a-z0-9]+', key.lower()))
    if words & _LOWER:
        return True
    if words & _HIGHER:
        return False
    try:
        return CheckpointHook(save_best=key).rules[0] == 'less'
    except ValueError:
        raise DMSError(
            f'the metric {key!r}: its name does not tell whether higher or '
            'lower values are better. Say so: `lower_is_better=True` or '
            'False, in a command --lower-is-better or --higher-is-better.'
        ) from None


def _chosen_key(
    metrics: Mapping[str, Any], wanted: Optional[str], option: str
) -> str:
    """The key, which the evaluation has."""
    key = wanted or next(iter(metrics), '')
    if key not in metrics:
        raise DMSError(
            f'{option} {key!r} is not among the metrics of the evaluation: '
            f'{sorted(metrics)}.'
        )
    return key
