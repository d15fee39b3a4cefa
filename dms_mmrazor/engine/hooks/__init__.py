"""Hooks of a search."""

from dms_mmrazor.engine.hooks.resource_hook import (
    ResourceHook,
    find_resource_hook,
)

__all__ = ['ResourceHook', 'find_resource_hook']
