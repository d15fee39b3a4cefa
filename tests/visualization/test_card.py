"""Cards of a transformer's and a detector's search, in a browser, too."""

import pytest

from dms_mmrazor.core.durations import phase_lengths
from dms_mmrazor.search.export import export_subnet
from dms_mmrazor.search.milestones import TargetPath
from dms_mmrazor.search.record import Recorder, describe_search
from dms_mmrazor.subnet import save_structure
from dms_mmrazor.visualization import write_card


def yolov8():
    from mmengine.config import ConfigDict
    from mmengine.hub import get_config

    path = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'
    cfg = ConfigDict(get_config(path).model, _scope_='mmyolo')
    cfg.init_cfg = None
    return cfg


@pytest.fixture(scope='module', params=['vit', 'yolov8'])
def card(request, zoo, tmp_path_factory, randomize_structure):
    """Search, its exported subnet, and the page."""
    if request.param == 'yolov8':
        pytest.importorskip('mmcv.ops', reason='detectors need compiled ops')
        search = zoo.algorithm(yolov8(), 64)
    else:
        search = zoo.algorithm(zoo.vit(48, 4, 4))
    mutator = search.mutator
    search.set_constraints({'macs': 1.0})
    targets = {'macs': 0.5 * mutator.table.full['macs']}
    path = TargetPath(mutator, targets, phase_lengths(0, 0.8, 100))
    folder = str(tmp_path_factory.mktemp(request.param))
    recorder = Recorder(folder)
    recorder.begin(
        describe_search(mutator, search.structure.step, targets, 100, seed=0)
    )
    for done in (20, 60, 100):
        randomize_structure(mutator, seed=done)
        aims = path.at(done)
        recorder.step(
            done, 'decay', aims, mutator, search.structure, {'task': 1.0}
        )
    subnet = export_subnet(search, targets)
    save_structure(subnet.structure, f'{folder}/subnet.yaml')
    recorder.budget('subnet', '.', 100, subnet.structure, {})
    with open(write_card(folder), encoding='utf-8') as file:
        return search, subnet, file.read()


def test_every_unit_and_stage_is_shown(card):
    search, subnet, page = card
    assert page.count('class="unit"') == (
        len(search.mutator.units) + len(search.mutator.depth_units)
    )
    blocks = [b for stage in subnet.structure.stages for b in stage.blocks]
    assert page.count('class="block') - page.count('class="blocks') == len(
        blocks
    )
    kept = [f'>{len(u.kept)} / {u.size}<' for u in subnet.structure.units]
    shown = sum(text in page for text in kept)
    assert shown + page.count('>removed<') >= len(kept)
    for layer in search.mutator.report().unsearched:
        assert f'<td>{layer.name}</td>' in page


def test_a_phone_shows_it(card, open_page):
    state = open_page(card[-1], 390)
    assert state['needed'] <= state['width'] == 390
    assert state['pictures'] >= 3


def test_measured_times_are_shown(card, tmp_path):
    """What a clock said of the whole models, where a table is there."""
    search, subnet, _ = card
    structure = subnet.structure
    row = {'supernet': 20.0, 'subnet': 11.0, 'ratio': 0.55, 'unit': 'ms'}
    resources = {**structure.resources, 'latency': row}
    structure = structure._replace(resources=resources)
    save_structure(structure, f'{tmp_path}/subnet.yaml')
    recorder = Recorder(str(tmp_path))
    targets = {'macs': structure.resources['macs']['target']}
    recorder.begin(describe_search(search.mutator, 'price', targets, 9))
    times = {'supernet': 24.0, 'subnet': 12.0}
    recorder.budget('subnet', '.', 9, structure, {}, times)
    write_card(str(tmp_path))
    text = (tmp_path / 'card.md').read_text(encoding='utf-8')
    assert 'supernet 24 ms, subnet 12 ms (50.0%)' in text
