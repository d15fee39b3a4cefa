"""The comparison of two states of the code."""

import json
import os.path as osp
import sys

ROOT = osp.join(osp.dirname(osp.abspath(__file__)), '../..')
sys.path.insert(0, osp.join(ROOT, 'tools/analysis_tools'))

from compare_behavior import main  # noqa: E402


def run(*args):
    return main([str(arg) for arg in args])


def test_a_difference_is_found_and_what_is_there_stays(tmp_path, capsys):
    before, after = tmp_path / 'before', tmp_path / 'after'
    for folder in (before, after):
        assert run(folder, '--only', 'grouped') == 0
    path = after / 'toys' / 'grouped.json'
    record = json.loads(path.read_text())
    assert record['units'] and record['soft_masks']['gradients']
    assert len(record['subnets']) == 2
    subnet = record['subnets'][0]
    assert subnet['exported'] == subnet['masked']
    assert run(after, '--against', before) == 0
    subnet['exported'][0][1] *= 1.01
    subnet['macs'] += 1
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert run(after, '--against', before) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('grouped: /subnets/0/macs: ')
    assert lines[1].startswith('grouped: /subnets/0/exported/0/1: ')
