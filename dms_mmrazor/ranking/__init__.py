"""Rank candidates of one budget by a short training, before the long one."""
