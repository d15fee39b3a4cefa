"""Optimizer constructors of a search."""

from dms_mmrazor.engine.optimizers.dms_optim_wrapper_constructor import (
    DMSOptimWrapperConstructor,
)

__all__ = ['DMSOptimWrapperConstructor']
