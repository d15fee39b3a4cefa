"""The search, the training of its supernet and the found subnet."""

from dms_mmrazor.models.algorithms.distilled_model import DistilledModel
from dms_mmrazor.models.algorithms.dms_algorithm import DMSAlgorithm
from dms_mmrazor.models.algorithms.dms_shared_supernet import (
    DMSSharedSupernet,
)
from dms_mmrazor.models.algorithms.sub_model import DMSSubModel

__all__ = [
    'DMSAlgorithm',
    'DMSSharedSupernet',
    'DMSSubModel',
    'DistilledModel',
]
