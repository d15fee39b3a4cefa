"""Differentiable Model Scaling in pure torch.

Top-k operators, importances, resource models, schedules and the final
rounding: the method without any framework. Imports torch alone.
"""

from .fitting import FitResult, fit_to_targets
from .flat_topk import FlatTopk
from .importance import (
    METRICS,
    SIGNED_METRICS,
    STATIC_METRICS,
    fisher,
    gradient,
    index_importance,
    l1_importance,
    snip,
    taylor,
)
from .latency import LatencyFit, fit_latency, rank_correlation
from .precision import KeepsPrecision
from .resource import Dim, ResourceModel, Term, resource_loss
from .schedule import Phase, phase_at, scheduled_target
from .structure_step import RULES, Constraint, StructureStep
from .topk import differentiable_topk, hard_topk, normalize_importance

__all__ = [
    'METRICS',
    'RULES',
    'SIGNED_METRICS',
    'STATIC_METRICS',
    'Constraint',
    'Dim',
    'FitResult',
    'FlatTopk',
    'KeepsPrecision',
    'LatencyFit',
    'Phase',
    'ResourceModel',
    'StructureStep',
    'Term',
    'differentiable_topk',
    'fisher',
    'fit_latency',
    'fit_to_targets',
    'gradient',
    'hard_topk',
    'index_importance',
    'l1_importance',
    'normalize_importance',
    'phase_at',
    'rank_correlation',
    'resource_loss',
    'scheduled_target',
    'snip',
    'taylor',
]
