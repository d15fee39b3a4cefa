"""Hooks of a search."""

from dms_mmrazor.engine.hooks.random_stream_hook import RandomStreamHook
from dms_mmrazor.engine.hooks.resource_hook import ResourceHook
from dms_mmrazor.engine.subnet_fitness import RecalibrateNormsHook

__all__ = [
    'RandomStreamHook',
    'RecalibrateNormsHook',
    'ResourceHook',
]
