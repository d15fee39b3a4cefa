"""Blocks of other libraries, one file or folder a library.

Each is imported where a model of that library is searched, never before.
"""
