"""Hooks, loops and optimizer constructors: how a search is run."""

from dms_mmrazor.engine import hooks, loops, optimizers, subnet_fitness

__all__ = ['hooks', 'loops', 'optimizers', 'subnet_fitness']
