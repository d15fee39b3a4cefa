"""Register what configs of language models build."""

from dms_mmrazor.plugins.transformers.causal_lm import CausalLM
from dms_mmrazor.plugins.transformers.perplexity import Perplexity
from dms_mmrazor.plugins.transformers.tokens import TokenWindows

__all__ = ['CausalLM', 'Perplexity', 'TokenWindows']
