"""The search, and the training of its supernet, as models."""

from dms_mmrazor.models.algorithms.distilled_model import DistilledModel
from dms_mmrazor.models.algorithms.dms_algorithm import DMSAlgorithm
from dms_mmrazor.models.algorithms.dms_shared_supernet import (
    DMSSharedSupernet,
)

__all__ = ['DMSAlgorithm', 'DMSSharedSupernet', 'DistilledModel']
