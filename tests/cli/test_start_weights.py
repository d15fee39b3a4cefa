"""A training starts from its own weights or does not start."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

from dms_mmrazor.cli.training_start import check_start_weights
from dms_mmrazor.engine.hooks import ResourceHook
from dms_mmrazor.errors import DMSError
from dms_mmrazor.subnet.foreign_weights import refuse_foreign_weights
from dms_mmrazor.subnet.surgery import pruned_copy


@pytest.fixture(scope='module')
def files(zoo, tmp_path_factory):
    """Checkpoints and what they belong to, of one small search."""
    folder = tmp_path_factory.mktemp('weights')
    search_cfg = dict(
        type='mmrazor.DMSAlgorithm',
        architecture=zoo.cifar_resnet(18),
        mutator=dict(parse_cfg=dict(demo_input=(1, 3, 32, 32)), verify=False),
    )
    search = MODELS.build(search_cfg)
    plain = MODELS.build(zoo.cifar_resnet(18))
    mutator = search.mutator
    full = mutator.choice_template
    stages = {stage.name for stage in mutator.depth_units}
    narrow = {name: max(1, full[name] // 2) for name in full}
    flat = {
        name: n if name in stages else full[name] for name, n in narrow.items()
    }
    structures = {
        'subnet': mutator.structure(narrow),
        'other widths': mutator.structure(
            {
                **full,
                **{
                    name: n for name, n in narrow.items() if name not in stages
                },
            }
        ),
        'other depth': mutator.structure(flat),
    }
    states = {name: pruned_copy(plain, s) for name, s in structures.items()}
    states.update(search=search, plain=plain)
    paths = {}
    for name, model in states.items():
        paths[name] = str(folder / f'{name}.pth')
        torch.save(dict(state_dict=model.state_dict(), meta={}), paths[name])
    retrain_cfg = dict(
        type='mmrazor.DMSSubModel',
        architecture=zoo.cifar_resnet(18),
        structure='subnet.yaml',
    )
    models = dict(search=search, retrain=states['subnet'])
    return paths, models, dict(search=search_cfg, retrain=retrain_cfg)


def _check(files, training, weights, key='load_from'):
    paths, models, cfgs = files
    cfg = Config(dict(model=cfgs[training]))
    if key == 'load_from':
        cfg.load_from = paths[weights]
    else:
        cfg.model.init_cfg = dict(type='Pretrained', checkpoint=paths[weights])
    check_start_weights(models[training], cfg)


@pytest.mark.parametrize('key', ['load_from', 'model.init_cfg'])
@pytest.mark.parametrize(
    'weights, words',
    [
        ('search', ['of a search', 'subnet.pth', 'export_subnet.py']),
        ('other widths', ['another network', 'subnet.pth']),
        ('other depth', ['another network', 'subnet.pth']),
        ('plain', ['another network', 'subnet.pth']),
    ],
)
def test_retraining(files, key, weights, words):
    with pytest.raises(DMSError) as error:
        _check(files, 'retrain', weights, key)
    assert all(word in str(error.value) for word in [key, *words])
    _check(files, 'retrain', 'subnet', key)  # what the error advises


def test_search(files):
    with pytest.raises(DMSError, match='load_from.*architecture.init_cfg'):
        _check(files, 'search', 'plain')
    _check(files, 'search', 'search')


def test_another_head_is_no_other_network(files, zoo):
    """Fine-tuning for other classes starts so."""
    paths, models, cfgs = files
    state = torch.load(paths['subnet'])['state_dict']
    for name in ('head.fc.weight', 'head.fc.bias'):
        state[name] = state[name][:3].clone()
    path = paths['subnet'].replace('subnet', 'classes')
    torch.save(dict(state_dict=state), path)
    cfg = Config(dict(model=cfgs['retrain'], load_from=path))
    check_start_weights(models['retrain'], cfg)


def test_whoever_loads_weights_into_a_subnet(files):
    """A runner without our tool, or mmengine's `init_cfg`."""
    paths, models, _ = files
    model = copy.deepcopy(models['retrain'])
    refuse_foreign_weights(model)
    for name, words in (('search', 'of a search'), ('plain', 'another netw')):
        with pytest.raises(DMSError, match=words):
            load_checkpoint(copy.deepcopy(model), paths[name])
    load_checkpoint(copy.deepcopy(model), paths['subnet'])


def test_whoever_loads_weights_into_a_search(files):
    paths, models, _ = files
    hook = ResourceHook(target=0.5)

    def load(name):
        runner = SimpleNamespace(
            _resume=False, _load_from=paths[name], model=models['search']
        )
        hook.after_load_checkpoint(runner, torch.load(paths[name]))

    with pytest.raises(DMSError, match='load_from.*architecture.init_cfg'):
        load('plain')
    load('search')
