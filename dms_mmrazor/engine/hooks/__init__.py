"""Hooks of a search."""

from dms_mmrazor.engine.hooks.resource_hook import ResourceHook

__all__ = ['ResourceHook']
