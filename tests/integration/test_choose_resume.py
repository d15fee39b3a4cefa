"""Which checkpoint a training resumes from."""

import os

import pytest
import torch
from mmengine.config import Config


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints; ``last_checkpoint`` names the second."""
    import dms_mmrazor.plugin  # noqa: F401

    for number in (1, 2, 3):
        path = tmp_path / f'epoch_{number}.pth'
        torch.save(dict(state_dict=dict(x=torch.zeros(1))), path)
        os.utime(path, (number, number))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    return tmp_path


def _newest(folder):
    from dms_mmrazor.cli.training_start import newest_checkpoint

    found = newest_checkpoint(str(folder))
    return found and os.path.basename(found)


def test_the_named_one(folder):
    assert _newest(folder) == 'epoch_2.pth'


@pytest.mark.parametrize('content', ['', '\0' * 8, '/nowhere/epoch_9.pth'])
def test_the_newest_if_none_is_named(content, folder):
    (folder / 'last_checkpoint').write_text(content)
    assert _newest(folder) == 'epoch_3.pth'


def test_damaged_ones_are_passed_over(folder):
    for number in (2, 3):
        path = folder / f'epoch_{number}.pth'
        path.write_bytes(path.read_bytes()[:100])
    assert _newest(folder) == 'epoch_1.pth'


def test_other_files_are_not_checkpoints_of_the_training(tmp_path):
    torch.save(dict(x=torch.zeros(1)), tmp_path / 'best_accuracy_epoch_1.pth')
    assert _newest(tmp_path) is None
    assert _newest(tmp_path / 'missing') is None


@pytest.mark.parametrize(
    'resume, load_from, expected',
    [
        (None, 'start.pth', (False, 'start.pth')),
        ('auto', 'start.pth', (True, 'epoch_2.pth')),
        ('this.pth', 'start.pth', (True, 'this.pth')),
    ],
)
def test_choose_resume(resume, load_from, expected, folder):
    from dms_mmrazor.cli.training_start import choose_resume

    cfg = Config(dict(work_dir=str(folder), resume=False, load_from=load_from))
    choose_resume(cfg, resume)
    assert (cfg.resume, os.path.basename(cfg.load_from)) == expected


def test_the_first_start_of_a_job_that_always_resumes(tmp_path):
    from dms_mmrazor.cli.training_start import choose_resume

    cfg = Config(dict(work_dir=str(tmp_path), load_from='start.pth'))
    choose_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (False, 'start.pth')


def test_a_config_from_the_work_dir_has_one_hook_already():
    """mmengine dumps what the first start has added."""
    from mmengine.config import Config

    from dms_mmrazor.cli.training_start import make_repeatable

    cfg = Config(dict(randomness=dict(seed=0)))
    make_repeatable(cfg)
    again = Config(cfg.to_dict())
    make_repeatable(again)
    assert again.custom_hooks == cfg.custom_hooks
    assert len(again.custom_hooks) == 1
