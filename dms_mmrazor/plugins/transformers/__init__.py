"""Causal language models of ``transformers``: Llama, Mistral, Qwen."""
