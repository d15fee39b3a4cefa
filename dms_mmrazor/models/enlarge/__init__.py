"""Make a supernet of a model whose config cannot make it larger."""

from dms_mmrazor.models.enlarge.enlarged_model import EnlargedModel

__all__ = ['EnlargedModel']
