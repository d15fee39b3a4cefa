"""A search of a language model by mmengine's runner, from local files."""

import os.path as osp

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import dms_mmrazor.plugin  # noqa: F401
from dms_mmrazor.cli.checkpoint_export import export_checkpoint
from dms_mmrazor.engine.search_config import find_resource_hook
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms.sub_model import find_sub_model
from dms_mmrazor.plugins.transformers.folder import export_folder, load_model
from dms_mmrazor.ranking.config_recipe import ConfigRecipe, Reduction
from dms_mmrazor.registry import MODELS
from dms_mmrazor.search.distillation import distillation_loss
from dms_mmrazor.search.record import read_record
from dms_mmrazor.subnet import save_structure

TINY = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
)

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(__file__))))


@pytest.fixture
def config_of(tiny_config, files):
    """A search of the zoo, made tiny."""

    def read(name, work_dir, iterations=6):
        cfg = tiny_config(name, work_dir, iterations)
        cfg.model.architecture.folder = files[0]
        cfg.model.mutator.parse_cfg.demo_input = (1, 12)
        return cfg

    return read


@pytest.mark.parametrize(
    'name, beside',
    [
        (
            'smollm2-135m_dms-search-80_text.py',
            'smollm2-135m_dms-finetune_text.py',
        ),
        (
            'llama-7b_dms-structure-only-5.47b_alpaca.py',
            'llama-7b_dms-finetune-lora_alpaca.py',
        ),
    ],
)
def test_search(name, beside, config_of, files, tmp_path):
    cfg = config_of(name, tmp_path / 'work')
    cfg.custom_hooks[0].update(target=dict(params=0.8), divisor=1)
    frozen = cfg.model.get('structure_only', False)
    runner = Runner.from_cfg(cfg)
    before = {
        k: v.clone() for k, v in runner.model.architecture.state_dict().items()
    }
    runner.train()
    after = runner.model.architecture.state_dict()
    assert frozen == all(torch.equal(after[k], v) for k, v in before.items())
    assert (runner.model.teacher is None) == frozen
    metrics = runner.message_hub.log_scalars['val/perplexity']
    assert metrics.current() > 1
    found = str(tmp_path / 'work/subnet')
    written = export_folder(
        files[0],
        f'{found}/subnet.yaml',
        str(tmp_path / 'out'),
        f'{found}/subnet.pth',
    )
    whole = sum(p.numel() for p in load_model(files[0]).parameters())
    assert 0.6 * whole < written['params'] <= 0.8 * whole
    _finetunes(found, beside, files)


def _finetunes(found, beside, files):
    """What the search has written goes on with its weights and teacher."""
    cfg = Config.fromfile(osp.join(found, 'retrain.py'))
    cfg.experiment_name = 'finetuning'
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    state = torch.load(osp.join(found, 'subnet.pth'), weights_only=True)
    own = runner.model.architecture.state_dict()
    assert all(
        own[k].equal(v.to(own[k])) for k, v in state['state_dict'].items()
    )
    start, teacher = load_model(files[0]).state_dict(), runner.model.teacher
    assert all(
        v.equal(start[k].to(v)) for k, v in teacher.lm.state_dict().items()
    )
    runner.train()
    assert 'train/loss_distill' in runner.message_hub.log_scalars
    record = read_record(found)
    assert record.search['finetunes']
    with open(osp.join(found, 'card.md')) as card:
        assert '## Finetuning' in card.read()
    command = record.search['retrain'].split(' --cfg-options ')
    assert command[0].endswith(f'configs/llama/{beside}')
    cfg = Config.fromfile(command[0].split()[-1])
    cfg.merge_from_dict(dict(o.split('=') for o in command[1].split()))
    _, part = find_sub_model(cfg.model)
    assert part.structure == f'{found}/subnet.yaml'
    assert part.init_cfg.checkpoint == f'{found}/subnet.pth'


def test_structures_of_a_finetuning_are_ranked(files, tmp_path):
    """Another structure than that of the config, without its weights."""
    cfg = Config.fromfile(
        osp.join(ROOT, 'configs/llama/smollm2-135m_dms-finetune_text.py')
    )
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(
            files=files[1], tokenizer=None, end_token=2, window=12
        )
    cfg.model.architecture.architecture.folder = files[0]
    cfg.model.teacher.folder = files[0]
    mutator = _distilled('searched', files[0])[0].mutator
    mutator.set_choices(
        {u.name: 24 for u in mutator.units if u.num_channels == 48}
    )
    path = str(tmp_path / 'one.yaml')
    save_structure(mutator.structure(), path)
    recipe = ConfigRecipe(
        cfg, str(tmp_path / 'work'), Reduction(1, 0.2), 0, evaluate=False
    )
    short = recipe.short_config(path, 0)
    part = short.model.architecture
    assert part.structure == path and 'init_cfg' not in part
    assert recipe(path, 0).losses


def test_finetuning_has_a_teacher(files, language_model):
    student = dict(type='CausalLM', folder=files[0])
    model = MODELS.build(
        dict(
            type='DistilledModel',
            architecture=student,
            teacher=dict(type='CausalLM', folder=files[0]),
            distill=dict(task_weight=0.0, temperature=2.0),
        )
    )
    tokens = torch.randint(3, 96, (2, 12))
    losses = model(tokens, tokens, mode='loss')
    assert float(losses['loss']) == 0
    assert abs(float(losses['loss_distill'])) < 1e-5
    model.architecture.lm.model.layers[0].mlp.down_proj.weight.data.mul_(2)
    losses = model(tokens, tokens, mode='loss')
    losses['loss_distill'].backward()
    assert float(losses['loss_distill']) > 0
    assert not any('teacher' in key for key in model.state_dict())


def _distilled(kind, folder):
    """A student unlike its teacher, searched or finetuned."""
    hidden = 'lm.model.layers.1'
    distill = dict(task_weight=0.0, hidden=hidden)
    model = MODELS.build(
        dict(
            type='DistilledModel',
            architecture=dict(type='CausalLM', folder=folder),
            teacher=dict(type='CausalLM', folder=folder),
            distill=distill,
        )
        if kind == 'finetuned'
        else dict(
            type='DMSAlgorithm',
            architecture=dict(type='CausalLM', folder=folder),
            mutator=dict(parse_cfg=dict(demo_input=(1, 12))),
            distill=distill,
        )
    )
    if kind == 'searched':
        model.distiller.start(model.architecture, model.teacher)
        model.set_constraints(dict(params=1.0))
        model.set_targets(dict(params=1e9))
    weight = model.architecture.lm.model.layers[0].mlp.down_proj.weight
    weight.data.mul_(2)
    return model.train(), model.teacher, hidden


@pytest.mark.parametrize('kind', ['searched', 'finetuned'])
def test_answers_alone_are_distilled(kind, files, tokens):
    model, teacher, hidden = _distilled(kind, files[0])
    labels = tokens.clone()
    # The answer of the first row is its last four tokens.
    labels[0, :-4] = -100
    labels[1, 5:] = -100
    with model.distiller.watching(model.architecture) as seen:
        losses = model(tokens, labels, mode='loss')
    with model.distiller.watching(teacher) as taught:
        teacher(tokens)
    counts = torch.zeros(2, 12, dtype=torch.bool)
    counts[0, -5:-1] = counts[1, :4] = True
    student, wanted = (o['lm.lm_head'][-1][counts] for o in (seen, taught))
    torch.testing.assert_close(
        losses['loss_distill'], distillation_loss(student, wanted)
    )
    student, wanted = (o[hidden][-1][counts] for o in (seen, taught))
    torch.testing.assert_close(
        losses['loss_hidden'], (student - wanted).square().mean()
    )


def test_teachers_that_do_not_fit(files):
    student = dict(type='CausalLM', folder=files[0])
    other = dict(type='CausalLM', config=dict(model_type='llama', **TINY))
    for teacher, message in (
        (other, 'the teacher knows 64 tokens, the student 96'),
        ('folder', 'model.teacher'),
    ):
        model = dict(
            type='DistilledModel', architecture=student, teacher=teacher
        )
        with pytest.raises(DMSError, match=message):
            MODELS.build(model)
    search = dict(
        type='DMSAlgorithm', architecture=student, distill=dict(teacher=other)
    )
    with pytest.raises(DMSError, match=r'model.distill.*64 tokens'):
        MODELS.build(search)


def test_no_onnx_of_tokens(config_of, tmp_path):
    name = 'smollm2-135m_dms-search-80_text.py'
    cfg = config_of(name, tmp_path)
    hook = find_resource_hook(cfg)
    with pytest.raises(DMSError, match='export_hf.py'):
        export_checkpoint(cfg, hook, 'any.pth', str(tmp_path), onnx=True)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(), 'either `folder`'),
        (dict(folder='nowhere'), 'config.json'),
        (dict(config=dict(hidden_size=8)), 'model_type'),
        (dict(config=dict(model_type='llamma')), 'llamma'),
    ],
)
def test_bad_models(settings, message):
    with pytest.raises(DMSError, match=message):
        MODELS.build(dict(type='CausalLM', **settings))
