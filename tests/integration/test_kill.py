"""Kills at the worst moments, in real processes."""

import os
import signal

import pytest


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _in_checkpoint():
    """Half of the third checkpoint is written."""
    from mmengine.fileio.backends import LocalBackend

    original = LocalBackend.put

    def put(self, obj, filepath):
        if 'epoch_3' not in str(filepath):
            return original(self, obj, filepath)
        original(self, obj[: len(obj) // 2], filepath)
        _kill()

    LocalBackend.put = put


def _in_last_checkpoint():
    """The file that names the checkpoint is opened, and empty."""
    from mmengine.hooks import CheckpointHook

    original = CheckpointHook._save_checkpoint_with_step

    def save(self, runner, step, meta):
        original(self, runner, step, meta)
        if step == 3:
            open(os.path.join(runner.work_dir, 'last_checkpoint'), 'w')
            _kill()

    CheckpointHook._save_checkpoint_with_step = save


def _in_export():
    """The weights are written, the structure is not."""
    from dms_mmrazor import files

    def safe_dump(data, file, **kwargs):
        file.write('format: half of')
        file.flush()
        _kill()

    files.yaml.safe_dump = safe_dump


@pytest.mark.parametrize(
    'moment, resumed',
    [(_in_checkpoint, 12), (_in_last_checkpoint, 18), (_in_export, 24)],
)
def test_kill(
    moment,
    resumed,
    small_search,
    run_tool,
    finished,
    same_result,
    undisturbed,
    tmp_path,
):
    cfg = small_search.config()
    assert finished(run_tool(cfg, tmp_path, before=moment)) == -signal.SIGKILL
    assert not (tmp_path / 'subnet' / 'subnet.yaml').exists()
    assert finished(run_tool(cfg, tmp_path, '--resume')) == 0
    assert f'iter: {resumed}' in (tmp_path / 'log.txt').read_text()
    same_result(tmp_path, undisturbed)


def test_mmengines_own_writing_would_leave_half(tmp_path):
    """Drop the workaround when this fails."""
    from mmengine.fileio.backends import LocalBackend

    path = tmp_path / 'file'
    path.write_bytes(b'whole')

    with pytest.raises(TypeError):
        LocalBackend().put(object(), str(path))
    assert path.read_bytes() == b''
