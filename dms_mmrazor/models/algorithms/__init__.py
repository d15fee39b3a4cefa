"""The search as a model."""

from dms_mmrazor.models.algorithms.dms_algorithm import DMSAlgorithm

__all__ = ['DMSAlgorithm']
