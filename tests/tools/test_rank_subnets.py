"""Candidates ranked by the real recipe of a config, in this process."""

import json

import pytest
import torch

from dms_mmrazor.baselines.structures import Request, random_structure
from dms_mmrazor.cli import command_line
from dms_mmrazor.engine.search_config import build_algorithm
from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import TASK_UTILS
from dms_mmrazor.search.export import uniform_structure
from dms_mmrazor.subnet import load_structure, save_structure

VALIDATED = """
val_dataloader = test_dataloader
val_evaluator = test_evaluator
val_cfg = dict()
"""


@pytest.fixture(scope='module')
def candidates(workspace):
    """A config with a validation, and two structures of equal MACs."""
    config = workspace / 'ranked.py'
    text = (workspace / 'retrain.py').read_text() + VALIDATED
    config.write_text(text)
    cfg = command_line.read_config(str(workspace / 'search.py'))
    mutator = build_algorithm(cfg).mutator
    targets = {'macs': 0.5 * mutator.table.full['macs']}
    structures = {
        'uniform': uniform_structure(mutator, targets, 2),
        'random': random_structure(mutator, Request(targets, 2, 3)),
    }
    paths = []
    for name, structure in structures.items():
        paths.append(workspace / f'{name}.yaml')
        save_structure(structure, str(paths[-1]))
    return [config, *paths]


@pytest.fixture
def rank(call, candidates, tmp_path):
    """Do some runs in this process; without a name, write the table."""

    def run(*options, runs=(), structures=2):
        command = [
            *('rank_subnets.py', *candidates[: structures + 1]),
            *('--epochs', 2, '--subset', 0.5, '--seeds', 1),
            *('--out-dir', tmp_path / 'out', *options),
        ]
        for name in runs:
            done = call(*command, '--run', f'{name}-s0')
            assert not done.status, done.err
        done = call(*command)
        assert not done.status, done.err
        return done.out, json.loads(
            (tmp_path / 'out' / 'ranking.json').read_text()
        )

    return run


def names_of(paths):
    return [str(path).replace('/', '_') for path in paths]


@pytest.mark.timeout(180)
def test_ranks_by_the_own_recipe(rank, candidates):
    out, found = rank(runs=names_of(candidates[1:]))
    assert '| accuracy: mean' in out and 'uniform.yaml' in out
    assert len(found['rows']) == 2
    scores = [row['score'] for row in found['rows']]
    assert scores == sorted(scores, reverse=True)
    for row in found['rows']:
        assert set(row['scores']) == {
            *('accuracy', 'final_loss', 'tse', 'landscape', 'speed', 'mote')
        }
        assert row['resources']['macs'] > 0 and row['seconds'] > 0
    for run in found['runs']:
        # Twenty images in batches of four, twice.
        assert len(run['result']['losses']) == 10
        assert len(run['result']['landscape']) == 11


@pytest.mark.timeout(180)
def test_reduced_data_and_networks_and_perturbations(
    rank, candidates, tmp_path, workspace
):
    perturbed = tmp_path / 'out' / 'candidates' / 'perturbed0-0.4-0.yaml'
    out, found = rank(
        *('--reduce', 'random-classes', '--classes', 2, '--repeats', 0.5),
        *('--resolution', 0.5, '--score', 'landscape', '--no-evaluation'),
        *('--search', workspace / 'search.py', '--perturb', 1),
        *('--perturb-scale', 0.4),
        runs=names_of([candidates[1], perturbed]),
        structures=1,
    )
    assert 'perturbed0' in out and '| landscape: mean' in out
    assert 'accuracy' not in found['agreement']
    macs = [row['resources']['macs'] for row in found['rows']]
    assert max(macs) / min(macs) < 1.02
    original, other = (
        load_structure(str(path)) for path in (candidates[1], perturbed)
    )
    assert original.units != other.units or original.stages != other.stages


def test_options_that_lack_something(call, candidates, tmp_path):
    for options, missing in (
        (('--perturb', 2), '--search'),
        (('--reduce', 'clusters'), '--classes'),
        (('--reduce', 'clusters', '--classes', 2), '--features'),
        (('--epochs', 0), 'epochs'),
    ):
        done = call(
            *('rank_subnets.py', *candidates, *options),
            *('--out-dir', tmp_path),
        )
        assert done.status == 2 and missing in done.err


def test_a_short_training_judges_subnets_of_a_loop(
    workspace, candidates, tmp_path
):
    cfg = command_line.read_config(str(workspace / 'search.py'))
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = 'short-training'
    runner = command_line.build_runner(cfg)
    mutator = runner.model.mutator
    choices = {u.name: u.current_choice for u in mutator.units}
    choices.update({s.name: s.current_choice for s in mutator.depth_units})

    def fitness(**kwargs):
        settings = dict(type='mmrazor.ShortTraining', subset=0.5, **kwargs)
        return TASK_UTILS.build(settings, default_args=dict(runner=runner))

    retrain = str(workspace / 'ranked.py')
    for judge in (fitness(), fitness(score='final_loss', retrain=retrain)):
        random = torch.get_rng_state()
        found = judge(choices, None)
        assert found['backward_images'] == 20 and found['seconds'] > 0
        assert found['score'] == judge(choices, None)['score']
        assert torch.equal(random, torch.get_rng_state())
    with pytest.raises(DMSError, match='SubnetAccuracy'):
        fitness(score='accuracy')
