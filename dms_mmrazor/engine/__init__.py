"""Hooks and optimizer constructors: how a search is run."""

from dms_mmrazor.engine import hooks, optimizers

__all__ = ['hooks', 'optimizers']
