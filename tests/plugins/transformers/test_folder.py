"""What was found becomes a folder that transformers loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dms_mmrazor import Search
from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.causal_lm import CausalLM
from dms_mmrazor.plugins.transformers.folder import (
    export_folder,
    load_model,
    save_folder,
)
from dms_mmrazor.plugins.transformers.loading import load_tokenizer
from dms_mmrazor.subnet import prune, save_structure

ROOT = Path(__file__).parents[3]
transformers = pytest.importorskip('transformers')
safetensors = pytest.importorskip('safetensors.torch')


@pytest.fixture
def found(language_model, tokens):
    """A searched model: its parts, all sizes differing."""
    model = language_model()
    search = Search(model, dict(input_ids=tokens), 0.8, 2)
    mutator = search.mutator
    choices = {unit.name: unit.num_channels for unit in mutator.units}
    choices['model.layers.0.self_attn.heads'] = 1
    choices['model.layers.2.mlp.gate_proj'] = 24
    mutator.set_choices(choices)
    return search


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits


def test_reload_and_write_again(found, tokens, tmp_path):
    subnet = found.export(divisor=1)
    files = save_folder(
        subnet.model, str(tmp_path / 'a'), structure=subnet.structure
    )
    assert 'modeling_dms.py' in files and 'README.md' in files
    assert '1 | 2 | 24' not in (tmp_path / 'a/README.md').read_text()
    folder, expected = tmp_path / 'a', logits(subnet.model, tokens)
    for again in ('b', 'c'):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=True
        )
        assert type(model).__name__ == 'DMSLlamaForCausalLM'
        assert model.lm_head.weight is model.model.embed_tokens.weight
        torch.testing.assert_close(logits(model, tokens), expected)
        folder = tmp_path / again
        model.save_pretrained(folder)
    config = json.loads((folder / 'config.json').read_text())
    assert config['per_layer_config'] == {
        '0': {'num_attention_heads': 2, 'num_key_value_heads': 1},
        '2': {'intermediate_size': 24},
    }
    options = dict(max_new_tokens=5, do_sample=False)
    options['attention_mask'] = torch.ones_like(tokens)
    assert torch.equal(
        model.generate(tokens, **options),
        subnet.model.generate(tokens, **options),
    )
    model.set_attn_implementation('eager')
    torch.testing.assert_close(logits(model, tokens), expected)


def test_found_folder_is_searched_again(found, tokens, tmp_path):
    subnet = found.export(divisor=1)
    first, path = str(tmp_path / 'found'), str(tmp_path / 'again.yaml')
    save_folder(subnet.model, first)
    expected = logits(subnet.model, tokens)
    torch.testing.assert_close(logits(load_model(first), tokens), expected)
    model = CausalLM(folder=first)
    torch.testing.assert_close(model.eval()(tokens), expected)
    mutator = Search(model.lm, dict(input_ids=tokens), 0.8, 2).mutator
    mutator.set_choices({'model.layers.2.mlp.gate_proj': 16})
    save_structure(mutator.structure(), path)
    second = str(tmp_path / 'again')
    export_folder(first, path, second)
    sizes = load_model(second).config.per_layer_config
    assert sizes['2'] == {'intermediate_size': 16}
    assert sizes['0']['num_key_value_heads'] == 1
    remote = transformers.AutoModelForCausalLM.from_pretrained(
        second, trust_remote_code=True
    )
    torch.testing.assert_close(
        logits(remote, tokens), logits(load_model(second), tokens)
    )


def test_tool_needs_no_code_of_ours(found, language_model, tokens, tmp_path):
    language_model().save_pretrained(tmp_path / 'supernet')
    subnet = found.export(str(tmp_path / 'subnet.yaml'), divisor=1)
    torch.save(subnet.model.state_dict(), tmp_path / 'subnet.pth')
    run = subprocess.run(
        [sys.executable, 'tools/export_hf.py', str(tmp_path / 'supernet')]
        + [str(tmp_path / 'subnet.yaml'), str(tmp_path / 'out')]
        + ['--weights', str(tmp_path / 'subnet.pth')],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    code = (
        'import sys, torch, transformers\n'
        'model = transformers.AutoModelForCausalLM.from_pretrained('
        'sys.argv[1], trust_remote_code=True)\n'
        'assert "dms_mmrazor" not in sys.modules\n'
        'print(sum(p.numel() for p in model.parameters()))'
    )
    loaded = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path / 'out')],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert loaded.returncode == 0, loaded.stderr
    params = sum(p.numel() for p in subnet.model.parameters())
    assert int(loaded.stdout.split()[-1]) == params


def test_uniform_folder_is_a_plain_one(language_model, tokens, tmp_path):
    supernet = language_model()
    mutator = Search(supernet, dict(input_ids=tokens), 0.8, 2).mutator
    mutator.set_choices(
        {u.name: 24 for u in mutator.units if u.num_channels == 48}
    )
    model = prune(language_model(), mutator.structure())
    save_folder(model, str(tmp_path))
    assert 'modeling_dms.py' not in [p.name for p in tmp_path.iterdir()]
    plain = load_model(str(tmp_path))
    assert type(plain) is type(model)
    torch.testing.assert_close(logits(plain, tokens), logits(model, tokens))


def test_wrong_files(found, language_model, tmp_path):
    with pytest.raises(DMSError, match='config.json'):
        load_model(str(tmp_path))
    language_model().save_pretrained(tmp_path / 'supernet')
    structure = found.mutator.structure()
    save_structure(structure, str(tmp_path / 'subnet.yaml'))
    torch.save(language_model().state_dict(), tmp_path / 'whole.pth')
    names = [str(tmp_path / name) for name in ('supernet', 'subnet.yaml')]
    with pytest.raises(DMSError, match='of another structure'):
        export_folder(
            *names, str(tmp_path / 'out'), str(tmp_path / 'whole.pth')
        )


def test_weights_of_a_trainer(found, language_model, tokens, tmp_path):
    """What transformers writes after a finetuning."""
    supernet, out = str(tmp_path / 'supernet'), str(tmp_path / 'out')
    language_model().save_pretrained(supernet)
    subnet = found.export(str(tmp_path / 'subnet.yaml'), divisor=1)
    subnet.model.model.norm.weight.data.mul_(3)
    save_folder(subnet.model, str(tmp_path / 'trained'))
    path = str(tmp_path / 'trained/model.safetensors')
    export_folder(supernet, str(tmp_path / 'subnet.yaml'), out, path)
    expected = logits(subnet.model, tokens)
    torch.testing.assert_close(logits(load_model(out), tokens), expected)


def test_weights_that_cannot_be_read(found, language_model, tmp_path):
    language_model().save_pretrained(tmp_path / 'supernet')
    names = [str(tmp_path / name) for name in ('supernet', 'subnet.yaml')]
    save_structure(found.mutator.structure(), names[1])
    torch.save(language_model(), tmp_path / 'whole.pth')
    (tmp_path / 'broken.safetensors').write_bytes(b'no weights')
    for path, message in (
        ('whole.pth', 'neither a tensor nor plain data'),
        ('broken.safetensors', 'cannot be read'),
        ('missing.pth', 'does not exist'),
        ('missing.safetensors', 'cannot be read'),
        ('supernet', 'name a file in it'),
    ):
        with pytest.raises(DMSError, match=message) as error:
            export_folder(*names, str(tmp_path / 'out'), str(tmp_path / path))
        assert '\n' not in str(error.value) and path in str(error.value)


def test_folders_without_weights(language_model, tmp_path):
    language_model().save_pretrained(tmp_path)
    whole = safetensors.load_file(tmp_path / 'model.safetensors')
    whole.pop('model.layers.1.mlp.up_proj.weight')
    weights = tmp_path / 'model.safetensors'
    safetensors.save_file(whole, weights, dict(format='pt'))
    with pytest.raises(DMSError, match='lacks weights.*up_proj'):
        load_model(str(tmp_path))
    weights.write_bytes(b'damaged')
    with pytest.raises(DMSError, match='cannot be loaded'):
        load_model(str(tmp_path))
    weights.unlink()
    with pytest.raises(DMSError, match='cannot be loaded: .*safetensors'):
        load_model(str(tmp_path))
    with pytest.raises(DMSError, match='has no tokenizer.json'):
        load_tokenizer(str(tmp_path))
    (tmp_path / 'tokenizer.json').write_text('{')
    with pytest.raises(DMSError, match='cannot be read'):
        load_tokenizer(str(tmp_path))
