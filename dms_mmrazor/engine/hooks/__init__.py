"""Hooks of a search."""

from dms_mmrazor.engine.hooks.random_stream_hook import RandomStreamHook
from dms_mmrazor.engine.hooks.resource_hook import (
    ResourceHook,
    find_resource_hook,
)

__all__ = ['RandomStreamHook', 'ResourceHook', 'find_resource_hook']
