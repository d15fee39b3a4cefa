"""The search as a model."""

from dms_mmrazor.models.algorithms.distilled_model import DistilledModel
from dms_mmrazor.models.algorithms.dms_algorithm import DMSAlgorithm

__all__ = ['DMSAlgorithm', 'DistilledModel']
