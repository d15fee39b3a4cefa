"""Searches without a runner."""

from dms_mmrazor.search.export import apply_structure
from dms_mmrazor.search.search import Search
from dms_mmrazor.search.structure_search import StructureSearch

__all__ = ['Search', 'StructureSearch', 'apply_structure']
