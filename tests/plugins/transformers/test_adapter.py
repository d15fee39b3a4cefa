"""Decoders of transformers are searched, proven and cut."""

import pytest
import torch

from dms_mmrazor import Search, write_card
from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph import count_macs
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.subnet import pruned_copy

transformers = pytest.importorskip('transformers')
FlopCounterMode = pytest.importorskip(
    'torch.utils.flop_counter'
).FlopCounterMode

CASES = {
    'GQA, tied': (dict(), dict()),
    'MHA, eager': (dict(groups=4, tied=False, attention='eager'), dict()),
    'query heads': (
        dict(tied=False, attention='eager'),
        dict(heads='queries', depth=True),
    ),
    'embedding': (dict(), dict(embedding=True, depth=True)),
    'Qwen2': (dict(family='Qwen2'), dict(embedding=True, depth=True)),
    'Mistral': (dict(family='Mistral', tied=False), dict(depth=True)),
    'Qwen3': (dict(family='Qwen3'), dict(heads='queries')),
}


def prepare(model, depth=False, **decoder):
    settings = dict(depth_unit_cfg=dict(type='DMSDepthUnit')) if depth else {}
    mutator = DMSMutator(
        parse_cfg=dict(demo_input=(1, 12), decoder=decoder), **settings
    )
    mutator.prepare_from_supernet(model)
    return mutator


def choose(mutator, seed):
    """Random numbers of random elements of every unit and stage."""
    generator = torch.Generator().manual_seed(seed)
    shape = mutator.topk.importance.shape
    mutator.topk.importance.copy_(torch.rand(shape, generator=generator))

    def number(most):
        return int(torch.randint(1, most + 1, (1,), generator=generator))

    choices = {u.name: number(u.num_channels) for u in mutator.units}
    stages = mutator.depth_units
    choices.update({s.name: number(s.num_blocks) for s in stages})
    mutator.set_choices(choices)


@pytest.mark.parametrize('case', CASES)
def test_masked_is_exported(language_model, tokens, case):
    model_args, settings = CASES[case]
    plain = language_model(**model_args)
    supernet = language_model(**model_args).eval()
    mutator = prepare(supernet, **settings)
    for seed in range(10):
        choose(mutator, seed)
        subnet = pruned_copy(plain, mutator.structure()).eval()
        with torch.no_grad():
            masked = supernet(input_ids=tokens).logits
            cut = subnet(input_ids=tokens).logits
        scale = float(cut.abs().max())
        torch.testing.assert_close(masked, cut, atol=1e-5 * scale, rtol=0)
        params = sum(p.numel() for p in subnet.parameters())
        assert params == mutator.resource('params')
        assert count_macs(subnet, (1, 12)) == mutator.resource('macs')
    options = dict(
        max_new_tokens=5,
        do_sample=False,
        attention_mask=torch.ones_like(tokens),
    )
    expected = subnet.generate(tokens, use_cache=False, **options)
    for model in (supernet, subnet):
        found = model.generate(tokens, **options)
        assert torch.equal(found, expected)


def test_units_of_a_layer(language_model):
    mutator = prepare(language_model())
    sizes = {unit.name: unit.num_channels for unit in mutator.units}
    assert len(sizes) == 6 and not mutator.depth_units
    assert sizes['model.layers.0.self_attn.heads'] == 2
    assert sizes['model.layers.0.mlp.gate_proj'] == 48
    heads = mutator.units[0]
    # Few elements: 4 N; heads need not be divisible.
    assert heads.temperature == 8 and heads.divisor(8) == 1


def test_config_tells_sizes(language_model):
    model = language_model()
    config = model.config
    mutator = prepare(language_model(), depth=True)
    mutator.set_choices(
        {
            'model.layers.0.self_attn.heads': 1,
            'model.layers.1.mlp.gate_proj': 24,
            'model.layers': 3,
        }
    )
    subnet = pruned_copy(model, mutator.structure())
    assert subnet.config.per_layer_config == {
        '0': {'num_attention_heads': 2, 'num_key_value_heads': 1},
        '1': {'intermediate_size': 24},
    }
    assert model.config is config and not hasattr(config, 'per_layer_config')
    attention = subnet.model.layers[0].self_attn
    assert attention.config is subnet.config is subnet.model.config


def test_attention_is_counted(language_model):
    mutator = prepare(language_model())
    parts = mutator.table.parts('macs')
    # Two products of 4 heads of 8 dims for 12 x 12 pairs of tokens.
    assert parts['model.layers.0.self_attn'] == 2 * 32 * 144


def test_unknown_models_are_refused():
    config = pytest.importorskip('transformers').GPT2Config(
        vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16
    )
    model = pytest.importorskip('transformers').GPT2LMHeadModel(config)
    with pytest.raises(DMSError, match='GPT2LMHeadModel.*mutator.groups'):
        prepare(model)


@pytest.mark.parametrize(
    'decoder', [dict(heads='all'), dict(embedding=1), dict(ffn=False)]
)
def test_wrong_settings(language_model, decoder):
    with pytest.raises(DMSError, match='mutator.parse_cfg.decoder'):
        prepare(language_model(), **decoder)


def _macs_of_the_last_token(model, tokens):
    """As torch counts them, with keys and values of the others cached."""
    model.eval()
    one = tokens[:1]
    with torch.no_grad():
        cache = model(input_ids=one[:, :-1], use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(input_ids=one[:, -1:], past_key_values=cache)
    # Positions times frequencies is a product for torch.
    rotary = model.model.layers[0].self_attn.head_dim // 2
    return counter.get_total_flops() // 2 - rotary


@pytest.mark.parametrize(
    'settings',
    [dict(), dict(heads='queries', depth=True), dict(embedding=True)],
)
def test_macs_of_a_token(language_model, tokens, settings):
    """Those of the last one of a context, where the others are cached."""
    plain = language_model(attention='eager')
    mutator = prepare(language_model(attention='eager'), **settings)
    whole = mutator.table.full['token_macs']
    assert whole == _macs_of_the_last_token(plain, tokens)
    assert whole == mutator.table.full['macs'] / 12
    choose(mutator, 0)
    subnet = pruned_copy(plain, mutator.structure())
    kept = mutator.resource('token_macs')
    assert kept == _macs_of_the_last_token(subnet, tokens) < whole


def test_targets_of_parameters_and_macs_of_a_token(
    language_model, tokens, tmp_path
):
    model, record = language_model(), str(tmp_path)
    targets = {'params': 0.9, 'token_macs': 0.75}
    inputs = dict(input_ids=tokens)
    search = Search(model, inputs, targets, 6, record=record)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for _ in range(6):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        search.step()
    rows = search.export(divisor=1).structure.resources
    assert rows['params']['ratio'] <= 0.9
    assert 0.7 < rows['token_macs']['ratio'] <= 0.75
    assert rows['token_macs']['input_size'] == {'input_ids': [12]}
    write_card(record)
    card = (tmp_path / 'card.md').read_text(encoding='utf-8')
    assert '| MACs per token |' in card and "{'input_ids': [12]}" in card


@pytest.mark.parametrize('name', ['GQA, tied', 'embedding'])
def test_parameters_of_the_layers(language_model, tokens, name):
    model, settings = CASES[name]
    model = language_model(**model)
    mutator = prepare(model, **settings)
    layers = model.model.layers.parameters
    full = sum(p.numel() for p in layers())
    assert mutator.table.full['layer_params'] == full
    assert full < mutator.table.full['params']
    mutator.set_choices(
        {u.name: 24 for u in mutator.units if u.num_channels == 48}
    )
    subnet = pruned_copy(language_model(), mutator.structure())
    kept = sum(p.numel() for p in subnet.model.layers.parameters())
    assert mutator.resource('layer_params') == kept < full


def test_a_target_of_the_layers(language_model, tokens):
    model = language_model()
    inputs, target = dict(input_ids=tokens), {'layer_params': 0.7}
    search = Search(model, inputs, target, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for _ in range(4):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        search.step()
    row = search.export(divisor=1).structure.resources['layer_params']
    assert 0.65 < row['ratio'] <= 0.7
    # Other models have nothing of it.
    plain = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Linear(16, 4))
    plain = Search(plain, torch.ones(1, 4), 0.5, 1)
    assert set(plain.resources()) == {'macs', 'params'}


def test_ffns_of_gpt2_are_declared(tokens):
    """Its layers have transposed weights, which a config may name."""
    config = transformers.GPT2Config(
        vocab_size=96, n_positions=16, n_embd=16, n_layer=2, n_head=2
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        if 'mlp' in name:
            torch.nn.init.normal_(parameter, std=0.3)
    groups = [
        dict(
            outputs=[f'transformer.h.{i}.mlp.c_fc'],
            inputs=[f'transformer.h.{i}.mlp.c_proj'],
        )
        for i in range(2)
    ]
    inputs = dict(input_ids=tokens)
    # Its attention splits by a number of its own: the heads stay.
    mutator = dict(groups=groups, exclude=['*.attn.c_attn'])
    search = Search(model, inputs, {'params': 0.8}, 3, mutator=mutator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for _ in range(3):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        search.step()
    subnet = search.export(divisor=1)
    mlps = [block.mlp for block in subnet.model.transformer.h]
    for mlp in mlps:
        assert mlp.c_fc.nf == mlp.c_proj.nx == mlp.c_proj.weight.shape[0]
    assert sum(mlp.c_fc.nf for mlp in mlps) < 2 * 64
    assert subnet.difference < 1e-4  # from the masked model
    plain = transformers.GPT2LMHeadModel(config)
    whole, params = (
        sum(p.numel() for p in m.parameters()) for m in (plain, subnet.model)
    )
    assert 0.7 * whole < params <= 0.8 * whole
