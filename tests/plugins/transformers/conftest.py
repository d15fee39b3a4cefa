"""Tiny language models with weights of a lively size."""

import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed: dms_mmrazor[llama]'
)

VOCABULARY = 96


@pytest.fixture
def language_model():
    """Builds a decoder of three layers."""

    def build(family='Llama', groups=2, tied=True, attention='sdpa'):
        config = getattr(transformers, f'{family}Config')(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=groups,
            head_dim=8,
            tie_word_embeddings=tied,
            attn_implementation=attention,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        torch.manual_seed(0)
        model = getattr(transformers, f'{family}ForCausalLM')(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
            else:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        return model

    return build


@pytest.fixture
def tokens():
    """Token ids [2, 12]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, VOCABULARY, (2, 12), generator=generator)
