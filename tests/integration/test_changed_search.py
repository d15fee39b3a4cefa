"""A search that is resumed with other settings says so."""

import pytest


@pytest.fixture
def resume(small_search, run_tool, finished, undisturbed, tmp_path):
    """Resume the second epoch with a changed config; status and log."""

    def run(change):
        cfg = small_search.config()
        change(cfg)
        path = str(undisturbed / 'epoch_2.pth')
        status = finished(run_tool(cfg, tmp_path, '--resume', path))
        return status, (tmp_path / 'log.txt').read_text()

    return run


def test_the_same_search_warns_of_nothing(resume):
    status, log = resume(lambda cfg: None)
    assert status == 0
    assert 'The resumed search changes' not in log


def test_target_and_schedule(resume):
    def change(cfg):
        hook = cfg['custom_hooks'][0]
        hook.update(target=0.6, schedule='linear', loss_weight=2.0)
        cfg['model']['mutator']['importance'] = dict(decay=0.9)
        cfg['model']['mutator']['channel_unit_cfg'] = dict(
            type='DMSChannelUnit', default_args=dict(min_ratio=0.25)
        )

    status, log = resume(change)
    assert status == 0
    for line in (
        'target.macs: 0.5 → 0.6',
        "schedule: 'exponential' → 'linear'",
        'loss_weight.macs: 1.0 → 2.0',
        "importance: ['taylor', 0.99] → ['taylor', 0.9]",
        'limits of backbone.conv1: [1, 8] → [2, 8]',
    ):
        assert f'WARNING - The resumed search changes {line}' in log, line


def test_length_and_learning_rate(resume):
    def change(cfg):
        cfg['train_cfg']['max_epochs'] = 3
        cfg['model']['structure_step'] = dict(rule='plain', lr=0.05)

    status, log = resume(change)
    assert status == 0
    assert 'changes max_iters: 24 → 18' in log
    assert 'changes structure_step: [' in log
    assert "→ ['plain', 0.05, 0.0]" in log


def test_another_width(resume):
    def change(cfg):
        architecture = cfg['model']['architecture']
        architecture['backbone'].update(base_channels=12)
        architecture['head']['in_channels'] = 24

    status, log = resume(change)
    assert status == 2
    assert 'belongs to another model' in log and 'Traceback' not in log


def test_units_are_compared_by_name():
    from dms_mmrazor.engine.search_settings import check_space
    from dms_mmrazor.errors import DMSError

    old = dict(a=[8, 1, 1, 8], b=[4, 1, 1, 4])
    check_space(old, dict(old, a=[8, 1, 2, 6]))
    with pytest.raises(DMSError, match="'b' had 4 .* has no elements"):
        check_space(old, dict(a=[8, 1, 1, 8]))
    with pytest.raises(DMSError, match="'a' had 8 elements of step 1"):
        check_space(old, dict(old, a=[8, 2, 1, 4]))
    with pytest.raises(DMSError, match='another order'):
        check_space(old, dict(reversed(list(old.items()))))
