"""Models of ``transformers``: Llama, Mistral, Qwen, vision transformers.

Transformers itself is imported when a model or a tokenizer is loaded.
"""

from dms_mmrazor.plugins.transformers import (  # noqa: F401
    conv1d,
    decoder_resources,
    decoders,
    vision,
)
from dms_mmrazor.plugins.transformers.adapter import make_adapter

__all__ = ['make_adapter']
