"""What people look at: milestones of a runner's search, record and card."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from dms_mmrazor.engine import search_watch
from dms_mmrazor.registry import MODELS
from dms_mmrazor.search.record import read_record
from dms_mmrazor.subnet import load_structure
from dms_mmrazor.supernet.resources import format_resource
from dms_mmrazor.visualization import write_card

ITERATIONS = 40
ROOT = Path(__file__).parents[2]


def config(zoo, search_config, work_dir, **changes):
    made = search_config(
        zoo.cifar_resnet(18),
        work_dir,
        ITERATIONS,
        hook=dict(
            target=0.3,
            milestones=['70%', 0.5],
            settle='3 iterations',
            interval=10,
            divisor=1,
        ),
        log_level='INFO',
        visualizer=dict(
            type='mmengine.Visualizer',
            vis_backends=[dict(type='mmengine.LocalVisBackend')],
        ),
        **changes,
    )
    made['val_dataloader'] = dict(made['train_dataloader'], drop_last=False)
    made['val_dataloader']['sampler'] = dict(
        type='mmengine.DefaultSampler', shuffle=False
    )
    made['val_dataloader']['batch_size'] = 120
    made['val_evaluator'] = dict(type='mmpretrain.Accuracy', topk=(1,))
    made['val_cfg'] = dict()
    made['train_cfg']['val_interval'] = 20
    made['default_hooks']['checkpoint'] = dict(
        type='mmengine.CheckpointHook', interval=20, by_epoch=False
    )
    return Config(made)


@pytest.fixture(scope='module')
def search(zoo, search_config, tmp_path_factory):
    """Work dir of a finished search, and its log."""
    work_dir = tmp_path_factory.mktemp('watch')
    before, search_watch.SECONDS = search_watch.SECONDS, 0
    try:
        runner = Runner.from_cfg(config(zoo, search_config, work_dir))
        runner.train()
    finally:
        search_watch.SECONDS = before
    (log,) = Path(runner.work_dir).glob('*/*.log')
    return Path(runner.work_dir), log.read_text()


def test_every_milestone_is_a_plain_model_at_its_budget(search, zoo):
    work_dir, _ = search
    for name, budget in (('-70', 0.7), ('-50', 0.5), ('', 0.3)):
        folder = work_dir / f'subnet{name}'
        structure = load_structure(str(folder / 'subnet.yaml'))
        ratio = structure.resources['macs']['ratio']
        assert 0.995 * budget <= ratio <= budget
        plain = MODELS.build(
            dict(
                type='mmrazor.DMSSubModel',
                architecture=zoo.cifar_resnet(18),
                structure=str(folder / 'subnet.yaml'),
            )
        )
        state = torch.load(folder / 'subnet.pth', weights_only=True)
        plain.load_state_dict(state['state_dict'])


def test_the_record_has_what_was_exported_and_validated(search):
    work_dir, log = search
    record = read_record(str(work_dir / 'subnet'))
    assert record.finished and record.iteration == ITERATIONS
    names = [row['name'] for row in record.budgets]
    assert names == ['subnet-70', 'subnet-50', 'subnet']
    for row in record.budgets:
        assert 0 <= row['metrics']['accuracy/top1'] <= 100
    assert [row['iteration'] for row in record.scores] == [20, 40]
    units = len(record.search['units']) + len(record.search['stages'])
    for row in record.steps:
        assert len(row['ratio']) == len(row['price']) == units
        assert 'task' in row['losses']


def test_a_line_says_where_the_search_stands(search):
    line = re.search(
        r'Search 50%, \w+, \d+:\d\d:\d\d left: macs .*', search[1]
    )
    for words in ('target now', 'at the end', 'dearest', 'cheapest'):
        assert words in line.group()


def test_the_visualizer_gets_pictures(search):
    images = list(search[0].glob('*/vis_data/vis_image/dms_structure*.png'))
    assert len(images) == 4


class Texts(HTMLParser):
    """All texts of a page, and what it would fetch."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.fetched = [], []
        self.feed(page)

    def handle_data(self, data):
        self.texts.append(data.strip())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.fetched += [values[k] for k in ('src', 'href') if k in values]


def test_the_card_has_the_numbers_of_the_structure_file(search):
    folder = search[0] / 'subnet'
    page = Texts((folder / 'card.html').read_text())
    assert page.fetched == ['data:,']
    structure = load_structure(str(folder / 'subnet.yaml'))
    plain = (folder / 'card.md').read_text()
    for kind, row in structure.resources.items():
        for key in ('supernet', 'subnet'):
            assert format_resource(row[key], kind) in page.texts
            assert format_resource(row[key], kind) in plain
    kept = [f'{len(u.kept)} / {u.size}' for u in structure.units]
    shown = page.texts.count('removed')
    assert sum(text in kept for text in page.texts) + shown >= len(kept)
    for name in ('subnet-70', 'subnet-50', 'accuracy/top1'):
        assert name in page.texts and name in plain
    assert any('tools/train.py' in text for text in page.texts)


def test_the_retraining_command_works(search):
    folder = search[0] / 'subnet'
    command = read_record(str(folder)).search['retrain']
    assert command == f'python tools/train.py {folder / "retrain.py"}'
    cfg = Config.fromfile(str(folder / 'retrain.py'))
    assert not [h for h in cfg.custom_hooks if 'Resource' in h['type']]
    cfg.train_cfg.max_iters = 1
    cfg.experiment_name = 'retraining'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert type(runner.model).__name__ != 'DMSAlgorithm'
    # So does that of each milestone, into a folder of its own.
    other = Config.fromfile(str(search[0] / 'subnet-50' / 'retrain.py'))
    assert other.work_dir == str(search[0] / 'retrain-50')
    path = str(search[0] / 'subnet-50' / 'subnet.yaml')
    assert other.model.structure == path
    plain = (folder / 'card.md').read_text()
    assert str(search[0] / 'subnet-50' / 'retrain.py') in plain


def test_a_resumed_search_exports_the_same(zoo, search_config, search):
    """The record drops what came after the checkpoint."""
    work_dir, _ = search
    again = work_dir.parent / f'{work_dir.name}-again'
    shutil.copytree(work_dir, again)
    for name in ('subnet-50', 'iter_40.pth'):
        path = again / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    cfg = config(
        zoo, search_config, again, load_from=str(again / 'iter_20.pth')
    )
    cfg.resume = True
    Runner.from_cfg(cfg).train()
    record = read_record(str(again / 'subnet'))
    names = [row['name'] for row in record.budgets]
    assert names == ['subnet-70', 'subnet-50', 'subnet']
    iterations = [row['iteration'] for row in record.steps]
    assert iterations == sorted(set(iterations))
    structure = load_structure(str(again / 'subnet-50' / 'subnet.yaml'))
    assert 0.4975 <= structure.resources['macs']['ratio'] <= 0.5


@pytest.fixture
def running(search, tmp_path):
    """The folder of a search that was killed while it wrote a line."""
    lines = (search[0] / 'subnet/search.jsonl').read_text().splitlines()
    steps = [i for i, line in enumerate(lines) if '"step"' in line]
    lines = lines[: steps[len(steps) // 2]]
    (tmp_path / 'search.jsonl').write_text('\n'.join(lines) + '\n{"type": "s')
    return tmp_path


def test_a_card_of_a_running_search(running):
    found = subprocess.run(
        [sys.executable, str(ROOT / 'tools/result_card.py'), str(running)],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    page = (running / 'card.html').read_text()
    assert f'of {ITERATIONS} (' in page and 'Retraining' not in page


@pytest.mark.parametrize('width', [1100, 390])
def test_a_browser_shows_the_card(search, open_page, width):
    page = (search[0] / 'subnet/card.html').read_text()
    state = open_page(page, width)
    assert state['needed'] <= state['width'] == width
    assert state['pictures'] >= 4


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match='is not the `subnet` folder'):
        write_card(str(tmp_path))
