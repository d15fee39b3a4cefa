"""Tiny language models with weights of a lively size."""

import os.path as osp
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed: dms_mmrazor[llama]'
)

VOCABULARY = 96

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(__file__))))


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


@pytest.fixture
def files(language_model, tmp_path):
    """Folder of a model, and an array of tokens."""
    folder, array = str(tmp_path / 'model'), str(tmp_path / 'tokens.npy')
    language_model().save_pretrained(folder)
    ids = np.random.RandomState(0).randint(3, VOCABULARY, 1000)
    ids[::50] = 2
    np.save(array, ids)
    return folder, array


@pytest.fixture
def tiny_config(files):
    """Reads a config of the zoo and makes its data and schedule tiny."""
    from mmengine.config import Config

    def read(name, work_dir, iterations=2):
        cfg = Config.fromfile(osp.join(ROOT, 'configs/llama', name))
        cfg.work_dir = str(work_dir)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.batch_size = 2
            loader.dataset.update(
                files=files[1], tokenizer=None, end_token=2, window=12
            )
        cfg.test_dataloader = cfg.val_dataloader
        cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
        cfg.default_hooks.checkpoint.update(interval=iterations)
        cfg.default_hooks.logger.update(interval=2)
        return cfg

    return read


CHOICES = {
    'model.layers.0.self_attn.heads': 1,
    'model.layers.1.self_attn.heads': 2,
    'model.layers.2.mlp.gate_proj': 24,
}
"""Sizes of a found model, those of its other units stay."""


@pytest.fixture
def found_structure(language_model, tokens):
    """A structure whose layers differ, found in a plain model."""
    from dms_mmrazor import Search

    search = Search(language_model(), dict(input_ids=tokens), 0.8, 2)
    search.mutator.set_choices(CHOICES)
    return search.mutator.structure()


@pytest.fixture
def found_model(language_model, found_structure):
    """Builds the plain model of this structure."""
    from dms_mmrazor.subnet import pruned_copy

    return lambda: pruned_copy(language_model(), found_structure)


@pytest.fixture
def found_files(files, found_model, language_model, tmp_path):
    """What a search by mmengine leaves behind, and where it began."""
    from dms_mmrazor.models.mutators import DMSMutator
    from dms_mmrazor.plugins.transformers.causal_lm import CausalLM
    from dms_mmrazor.subnet import pruned_copy, save_structure

    whole = CausalLM(folder=files[0])
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 12)))
    mutator.prepare_from_supernet(CausalLM(folder=files[0]))
    mutator.set_choices({f'lm.{k}': v for k, v in CHOICES.items()})
    structure, weights = (
        str(tmp_path / name) for name in ('subnet.yaml', 'subnet.pth')
    )
    save_structure(mutator.structure(), structure)
    model = pruned_copy(whole, mutator.structure())
    torch.save(dict(state_dict=model.state_dict()), weights)
    return SimpleNamespace(
        supernet=files[0],
        structure=structure,
        weights=weights,
        model=model.lm,
    )
