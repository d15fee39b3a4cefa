"""Evolution and random search by the real tool, killed and resumed."""

import json

import pytest
import torch

LOOP = dict(
    type='mmrazor.DMSEvolutionLoop',
    population=4,
    generations=3,
    parents=2,
    recalibrate=8,
    fitness=dict(images=16),
)


def config(small_search, loop):
    cfg = small_search.config()
    cfg['train_cfg'] = dict(loop)
    return cfg


def candidates(folder):
    with open(str(folder / 'candidates.jsonl')) as file:
        rows = [json.loads(line) for line in file]
    for row in rows[1:]:
        assert row['result'].pop('seconds') > 0
    return rows


def killed_after(number):
    """In the process: a fitness that is killed in the middle of a search."""

    def prepare():
        import os
        import signal

        from dms_mmrazor.engine.subnet_fitness import SubnetAccuracy

        judge, count = SubnetAccuracy.__call__, [0]

        def call(self, choices, subnet):
            count[0] += 1
            if count[0] > number:
                os.kill(os.getpid(), signal.SIGKILL)
            return judge(self, choices, subnet)

        SubnetAccuracy.__call__ = call

    return prepare


@pytest.mark.timeout(120)
def test_killed_evolution_ends_as_the_undisturbed_one(
    small_search, run_tool, finished, tmp_path
):
    cfg = config(small_search, LOOP)
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert finished(run_tool(cfg, whole)) == 0, (whole / 'log.txt').read_text()
    assert finished(run_tool(cfg, broken, before=killed_after(6))) == -9
    assert len(candidates(broken)) == 1 + 6
    with open(str(broken / 'candidates.jsonl'), 'a') as file:
        file.write('{"generation": 1, "orig')  # half a line
    assert finished(run_tool(cfg, broken)) == 0
    rows = candidates(whole)
    assert rows == candidates(broken) and len(rows) == 1 + 12
    for name in ('subnet.yaml', 'subnet.pth'):
        one, other = ((f / 'subnet' / name) for f in (whole, broken))
        if name.endswith('yaml'):
            assert one.read_text() == other.read_text()
            continue
        one, other = (torch.load(str(path)) for path in (one, other))
        for key, value in one['state_dict'].items():
            assert torch.equal(value, other['state_dict'][key]), key
    best = max(rows[1:], key=lambda row: row['result']['score'])
    assert best['resources']['macs'] <= rows[0]['targets']['macs']
    assert best['result']['forward_images'] == 24
    check_card(whole / 'subnet', best)
    check_card(broken / 'subnet', best)
    text = (whole / 'subnet' / 'subnet.yaml').read_text()
    assert f'subnet: {best["resources"]["macs"]:.0f}' in text

    cfg['train_cfg']['seed'] = 1
    assert finished(run_tool(cfg, broken)) == 2
    assert 'seed' in (broken / 'log.txt').read_text().splitlines()[-1]


def check_card(folder, best):
    """The card has each structure's score, and no talk of gradients."""
    lines = (folder / 'search.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines if line]
    scores = {r['iteration']: r for r in rows if r['type'] == 'score'}
    assert sorted(scores) == list(range(1, 13))
    assert scores[12]['metrics']['best so far'] == pytest.approx(
        best['result']['score'], rel=1e-5
    )
    page = (folder / 'card.html').read_text()
    assert 'Finished after 12 of 12 structures' in page
    assert 'DMSEvolutionLoop: ' in page and 'there are no prices' in page
    assert 'Score of each structure' in page and 'soft masks' not in page
    assert (folder / 'retrain.py').is_file()
    assert 'NaN' not in page and 'None' not in page.split('<pre>')[0]


@pytest.mark.timeout(60)
def test_random_search(small_search, run_tool, finished, tmp_path, open_page):
    loop = dict(
        type='mmrazor.DMSRandomSearchLoop',
        number=3,
        recalibrate=8,
        fitness=dict(images=16),
    )
    cfg = config(small_search, loop)
    assert finished(run_tool(cfg, tmp_path)) == 0
    rows = candidates(tmp_path)[1:]
    assert [row['origin'] for row in rows] == ['random'] * 3
    state = open_page((tmp_path / 'subnet' / 'card.html').read_text(), 390)
    assert state['needed'] <= state['width'] and state['pictures'] >= 2
    check_norms_anew(cfg, tmp_path)


def check_norms_anew(cfg, folder):
    """The subnet in a test of its own, whose norms are computed anew."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    cfg = {key: value for key, value in cfg.items() if 'train_cfg' != key}
    cfg['model'] = dict(
        type='mmrazor.DMSSubModel',
        architecture=cfg['model']['architecture'],
        structure=str(folder / 'subnet' / 'subnet.yaml'),
    )
    cfg['custom_hooks'] = [
        dict(type='mmrazor.RecalibrateNormsHook', images=16)
    ]
    for key in ('dataloader', 'evaluator', 'cfg'):
        cfg[f'test_{key}'] = cfg.pop(f'val_{key}')
    for key in ('optim_wrapper', 'param_scheduler'):
        cfg.pop(key)
    cfg.update(work_dir=str(folder / 'test'), experiment_name='test')
    cfg['load_from'] = str(folder / 'subnet' / 'subnet.pth')
    loader = cfg.pop('train_dataloader')
    runner = Runner.from_cfg(Config(cfg))
    runner.cfg.train_dataloader = loader  # the hook's data
    norm = runner.model.backbone.norm1
    before = norm.running_mean.clone()
    assert 0 <= runner.test()['accuracy/top1'] <= 100
    assert int(norm.num_batches_tracked) == 2
    assert not (norm.running_mean == before).all()


@pytest.mark.timeout(60)
def test_settings_that_a_config_inherits(
    small_search, run_tool, finished, tmp_path
):
    cfg = config(small_search, dict(LOOP, by_epoch=True))
    assert finished(run_tool(cfg, tmp_path)) == 2
    last = (tmp_path / 'log.txt').read_text().splitlines()[-1]
    assert 'by_epoch' in last and '_delete_=True' in last
