"""The mutator: units, masks and resources of one supernet."""

from dms_mmrazor.models.mutators.dms_mutator import DMSMutator
from dms_mmrazor.models.mutators.report import LayerReport, SearchSpaceReport

__all__ = ['DMSMutator', 'LayerReport', 'SearchSpaceReport']
