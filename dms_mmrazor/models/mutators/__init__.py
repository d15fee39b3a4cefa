"""The mutator: units, masks and resources of one supernet."""

from dms_mmrazor.models.mutators.dms_mutator import DMSMutator

__all__ = ['DMSMutator']
