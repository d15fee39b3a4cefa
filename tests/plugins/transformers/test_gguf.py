"""GGUF files are read back by the package of llama.cpp."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.folder import load_model
from dms_mmrazor.plugins.transformers.gguf_file import as_pairs, save_gguf
from dms_mmrazor.plugins.transformers.gguf_vocabulary import read_vocabulary
from dms_mmrazor.subnet import pruned_copy

gguf = pytest.importorskip(
    'gguf', reason='gguf is not installed: dms_mmrazor[gguf]'
)
transformers = pytest.importorskip('transformers')

ROOT = Path(__file__).parents[3]
PARTS = {
    'attn_q': 'self_attn.q_proj',
    'attn_k': 'self_attn.k_proj',
    'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.o_proj',
    'ffn_gate': 'mlp.gate_proj',
    'ffn_up': 'mlp.up_proj',
    'ffn_down': 'mlp.down_proj',
    'attn_norm': 'input_layernorm',
    'ffn_norm': 'post_attention_layernorm',
}
"""llama.cpp's names of the parts of a layer."""


def read(path):
    """Fields and tensors of a file."""
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    tensors = {
        t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type))
        for t in reader.tensors
    }
    return fields, tensors


def turned(weight, dims):
    """Rows i and i + d/2 of each head beside each other, one by one."""
    half = dims // 2
    order = [
        head + i + part
        for head in range(0, len(weight), dims)
        for i in range(half)
        for part in (0, half)
    ]
    return weight[order]


def check_layers(tensors, model):
    for index, layer in enumerate(model.model.layers):
        for name, part in PARTS.items():
            weight = layer.get_submodule(part).weight.detach()
            if name in ('attn_q', 'attn_k'):
                weight = turned(weight, model.config.head_dim)
            found = tensors[f'blk.{index}.{name}.weight']
            assert torch.equal(found, weight.float()), (index, name)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_sizes_of_each_layer(found_model, dtype, tmp_path):
    model, path = found_model().to(dtype), str(tmp_path / 'a.gguf')
    names = save_gguf(model, path)
    fields, tensors = read(path)
    assert fields['general.architecture'] == 'deci'
    assert fields['deci.attention.head_count'] == [2, 4, 4]
    assert fields['deci.attention.head_count_kv'] == [1, 2, 2]
    assert fields['deci.feed_forward_length'] == [48, 48, 24]
    assert fields['deci.attention.key_length'] == 8
    assert fields['tokenizer.ggml.model'] == 'no_vocab'
    assert sorted(names) == sorted(tensors)
    check_layers(tensors, model)
    embedding = model.model.embed_tokens.weight.detach().float()
    assert torch.equal(tensors['token_embd.weight'], embedding)
    assert 'output.weight' not in tensors  # tied


def test_depth_and_embedding(language_model, tmp_path):
    from dms_mmrazor.models.mutators import DMSMutator

    mutator = DMSMutator(
        parse_cfg=dict(demo_input=(1, 12), decoder=dict(embedding=True)),
        depth_unit_cfg=dict(type='DMSDepthUnit'),
    )
    mutator.prepare_from_supernet(language_model(tied=False))
    mutator.set_choices({'model.embed_tokens': 24, 'model.layers': 2})
    model = pruned_copy(language_model(tied=False), mutator.structure())
    path = str(tmp_path / 'a.gguf')
    save_gguf(model, path)
    fields, tensors = read(path)
    assert fields['general.architecture'] == 'llama'
    assert fields['llama.block_count'] == 2
    assert fields['llama.embedding_length'] == 24
    assert fields['llama.attention.head_count'] == 4
    check_layers(tensors, model)
    assert torch.equal(tensors['output.weight'], model.lm_head.weight)


def test_rotated_pairs_are_neighbors():
    """Two heads of four channels, each named by its head and number."""
    weight = torch.tensor([[0, 1, 2, 3, 10, 11, 12, 13]]).T
    pairs = [0, 2, 1, 3, 10, 12, 11, 13]
    assert as_pairs(weight, 2)[:, 0].tolist() == pairs


def make_tokenizer(folder, size):
    """Byte pairs of a few words, as many as the model knows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=['<end>'], show_progress=False
    )
    tokenizer.train_from_iterator(['to be or not to be'] * 3, trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token='<end>'
    ).save_pretrained(folder)


def test_tool_writes_it_with_the_tokenizer(found_files, tmp_path):
    make_tokenizer(found_files.supernet, 40)
    out, path = str(tmp_path / 'out'), str(tmp_path / 'found.gguf')
    run = subprocess.run(
        [sys.executable, 'tools/export_hf.py', found_files.supernet]
        + [found_files.structure, out, '--weights', found_files.weights]
        + ['--gguf', path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    fields, tensors = read(path)
    check_layers(tensors, load_model(out))
    assert fields['tokenizer.ggml.model'] == 'gpt2'
    assert fields['tokenizer.ggml.pre'] == 'gpt-2'
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    tokens = fields['tokenizer.ggml.tokens']
    assert len(tokens) == 96  # as many as the embedding has
    for index in range(len(tokenizer)):
        assert tokens[index] == tokenizer.convert_ids_to_tokens(index)
    kinds = fields['tokenizer.ggml.token_type']
    assert kinds[0] == gguf.TokenType.CONTROL
    assert kinds[1] == gguf.TokenType.NORMAL
    assert fields['tokenizer.ggml.eos_token_id'] == 0
    assert fields['tokenizer.ggml.merges'][0].count(' ') == 1


def test_qwen_is_not_reordered(language_model, found_structure, tmp_path):
    path, model = str(tmp_path / 'a.gguf'), language_model('Qwen2')
    save_gguf(model, path)
    fields, tensors = read(path)
    assert fields['general.architecture'] == 'qwen2'
    query = model.model.layers[1].self_attn.q_proj
    assert torch.equal(tensors['blk.1.attn_q.weight'], query.weight)
    assert torch.equal(tensors['blk.1.attn_q.bias'], query.bias)
    found = pruned_copy(model, found_structure)
    with pytest.raises(DMSError, match='all layers are alike'):
        save_gguf(found, path)


def test_what_is_not_written(language_model, found_model, tmp_path):
    path = str(tmp_path / 'a.gguf')
    scaled = language_model()
    scaled.config.rope_scaling = dict(rope_type='linear', factor=2.0)
    with pytest.raises(DMSError, match='rope_scaling'):
        save_gguf(scaled, path)
    make_tokenizer(tmp_path, 40)
    file = tmp_path / 'tokenizer.json'
    content = json.loads(file.read_text())
    digits = dict(type='Digits', individual_digits=False)
    others = [digits, digits, content['pre_tokenizer']]
    with pytest.raises(DMSError, match='tokens, the model 8: give'):
        read_vocabulary(str(tmp_path), None, 8)
    for parts, message in (
        (others, r"splits a text by \['Digits', 'Digits', 'ByteLevel'\]"),
        ([digits], 'merges neither bytes nor characters'),
    ):
        content['pre_tokenizer'] = dict(type='Sequence', pretokenizers=parts)
        file.write_text(json.dumps(content))
        with pytest.raises(DMSError, match=message):
            save_gguf(found_model(), path, str(tmp_path))


def test_merged_characters_have_scores(language_model, tmp_path):
    """SentencePiece's kind, as Llama's: the first merge is the best."""
    from tokenizers import Tokenizer, models, normalizers

    pieces = '<unk> <s> </s> <0x41> ▁ a b ▁a ▁ab'.split()
    model = models.BPE(
        {piece: index for index, piece in enumerate(pieces)},
        [('▁', 'a'), ('▁a', 'b')],
        unk_token='<unk>',
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Prepend('▁')
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token='<s>',
        eos_token='</s>',
        unk_token='<unk>',
    ).save_pretrained(tmp_path)
    path = str(tmp_path / 'a.gguf')
    save_gguf(language_model(), path, str(tmp_path))
    fields = read(path)[0]
    assert fields['tokenizer.ggml.model'] == 'llama'
    assert fields['tokenizer.ggml.tokens'][:9] == pieces
    assert fields['tokenizer.ggml.scores'][4:9] == [-2, -2, -2, 0, -1]
    kinds = gguf.TokenType
    expected = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, kinds.BYTE]
    expected += [kinds.NORMAL] * 5
    assert fields['tokenizer.ggml.token_type'][:9] == expected
    assert fields['tokenizer.ggml.add_space_prefix']
    assert not fields['tokenizer.ggml.add_bos_token']
    assert fields['tokenizer.ggml.eos_token_id'] == 2
