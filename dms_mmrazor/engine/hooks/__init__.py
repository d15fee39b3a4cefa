"""Hooks of a search."""

from dms_mmrazor.engine.hooks.find_resource_hook import find_resource_hook
from dms_mmrazor.engine.hooks.random_stream_hook import RandomStreamHook
from dms_mmrazor.engine.hooks.recalibrate_norms_hook import (
    RecalibrateNormsHook,
)
from dms_mmrazor.engine.hooks.resource_hook import ResourceHook

__all__ = [
    'RandomStreamHook',
    'RecalibrateNormsHook',
    'ResourceHook',
    'find_resource_hook',
]
