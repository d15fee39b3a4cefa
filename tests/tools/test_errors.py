"""Mistakes end before training, with one line and status 2."""

import pytest


def check(done, *texts):
    """One line on standard error, no traceback, status 2."""
    assert done.status == 2, done.err
    (line,) = done.error_lines
    for text in texts:
        assert str(text) in line
    assert 'Epoch(train)' not in done.out


def test_missing_config(tool):
    check(tool('train.py', 'nowhere.py'), 'nowhere.py does not exist')


@pytest.mark.parametrize(
    'option, texts',
    [
        (
            'custom_hooks.0.target=0.0001',
            ('target', 'cannot be reached', 'smallest reachable'),
        ),
        ('custom_hooks.0.target=9G', ('target', 'more than the supernet')),
        (
            'model.mutator.exclude=[backbone.layer9]',
            ('mutator.exclude', "'backbone.layer9'", 'Did you mean'),
        ),
    ],
)
def test_mistakes_in_the_config(option, texts, workspace, tool, tmp_path):
    done = tool(
        *('train.py', workspace / 'search.py', '--work-dir', tmp_path),
        *('--cfg-options', option),
    )
    check(done, *texts)


def test_inspect_shows_the_space_of_an_unreachable_target(workspace, call):
    done = call(
        *('inspect_supernet.py', workspace / 'search.py'),
        *('--cfg-options', 'custom_hooks.0.target=9G'),
    )
    check(done, 'more than the supernet')
    assert 'width units' in done.out


def test_truncated_checkpoint(search, workspace, tool, tmp_path):
    whole = (search / 'iter_4.pth').read_bytes()
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(whole[: len(whole) // 2])
    done = tool(
        *('train.py', workspace / 'search.py', '--work-dir', tmp_path),
        *('--resume', broken),
    )
    check(done, broken, 'truncated')


def test_structure_of_another_architecture(search, workspace, tool, tmp_path):
    done = tool(
        *('train.py', workspace / 'retrain.py', '--work-dir', tmp_path),
        *('--cfg-options', 'model.architecture.backbone.base_channels=16'),
        'model.architecture.backbone.stem_channels=16',
        'model.architecture.head.in_channels=32',
    )
    check(done, 'another architecture')


def test_checkpoint_of_another_model(search, workspace, tool, call):
    """mmengine itself would go on with random weights."""
    wrong = search / 'subnet' / 'subnet.pth'
    check(tool('test.py', workspace / 'search.py', wrong), wrong)
    check(call('export_subnet.py', workspace / 'search.py', wrong), wrong)


def test_visualize_needs_a_structure_file(call, tmp_path):
    done = call('visualize_subnet.py', tmp_path / 'no.yaml')
    check(done, 'no.yaml does not exist')
