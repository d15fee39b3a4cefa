import pytest

from dms_mmrazor.engine.metric_choice import (
    chosen_metric,
    chosen_score,
    is_lower_better,
)
from dms_mmrazor.errors import DMSError

HIGHER = [
    *('accuracy/top1', 'coco/bbox_mAP', 'coco/AP', 'mIoU', 'PCK'),
    *('single-label/f1-score', 'single-label/recall', 'auc'),
]


def test_directions_by_name():
    assert not any(is_lower_better(key) for key in HIGHER)
    for key in ('perplexity', 'val_loss', 'MAE', 'depth/rmse', 'NME'):
        assert is_lower_better(key)
    with pytest.raises(DMSError, match="'wisdom'.*lower_is_better=True"):
        is_lower_better('wisdom')


def test_a_score_is_higher_where_it_is_better():
    metrics = {'perplexity': 20.0, 'tokens': 100.0, 'wisdom': 3.0}
    assert chosen_metric(metrics, None, 'o') == 20
    assert chosen_score(metrics, None, None, 'o') == -20
    assert chosen_score(metrics, 'wisdom', False, 'o') == 3
    assert chosen_score(metrics, 'wisdom', True, 'o') == -3
    with pytest.raises(DMSError, match="--metric 'top1' is not among"):
        chosen_score(metrics, 'top1', None, '--metric')
