"""A searched model without a runner: what moves its structure."""

from dms_mmrazor.search.structure_search import StructureSearch

__all__ = ['StructureSearch']
