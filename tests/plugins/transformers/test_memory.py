"""What a search takes is worked out without values, and seen with some."""

from pathlib import Path

import pytest
import torch

from dms_mmrazor import Search
from dms_mmrazor.plugins.transformers.memory import (
    kept_bytes,
    rows,
    search_memory,
)

README = Path(__file__).parents[3] / 'configs/llama/README.md'
transformers = pytest.importorskip('transformers')


def test_table_of_the_seven_billion():
    parts = search_memory(dict(model_type='llama'), batch=8, window=128)
    assert parts['weights, frozen'] == 2 * 6_738_415_616
    assert parts['in all'] < 20e9
    assert rows(parts) in README.read_text(encoding='utf-8')


def test_a_layer_of_a_search_keeps_so_much():
    """On a small model, with masks and values."""
    sizes = dict(
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=96,
    )
    config = dict(model_type='llama', **sizes)
    parts = search_memory(config, batch=4, window=32, dtype='float32')
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    model.requires_grad_(False)
    tokens = torch.randint(96, (4, 32))
    search = Search(model, dict(input_ids=tokens[:1]), 0.8, 5)
    search.model.train()(input_ids=tokens, use_cache=False)
    layer = model.model.layers[0]
    states = torch.rand(4, 32, 64, requires_grad=True)
    turned = model.model.rotary_emb(states, torch.arange(32)[None])
    seen = kept_bytes(lambda: layer(states, position_embeddings=turned), layer)
    wanted = parts['inside one layer, computed again']
    wanted += parts['masked weights of one layer']
    assert 0.8 * wanted < seen < 1.2 * wanted
