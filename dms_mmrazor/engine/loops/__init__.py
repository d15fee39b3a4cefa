"""Loops that try structures instead of following a gradient."""

from dms_mmrazor.engine.loops.evolution_loop import (
    DMSEvolutionLoop,
    DMSRandomSearchLoop,
)

__all__ = ['DMSEvolutionLoop', 'DMSRandomSearchLoop']
