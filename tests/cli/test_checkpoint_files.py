import pytest
import torch
from mmengine.config import Config
from torch import nn

from dms_mmrazor.engine.checkpoint_files import (
    check_config_checkpoints,
    check_fits,
    read_checkpoint,
    state_dict_of,
)
from dms_mmrazor.errors import DMSError


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / 'iter_3.pth'
    state = nn.Linear(64, 64).state_dict()
    content = dict(state_dict=state, meta=dict(iter=3, epoch=0))
    torch.save(content, str(path))
    return path


def test_whole_file(saved):
    assert read_checkpoint(str(saved))['meta']['iter'] == 3


@pytest.mark.parametrize('part', [0, 1, 0.01, 0.5, 0.9, 0.999])
def test_truncated_file(saved, part):
    data = saved.read_bytes()
    length = int(part * len(data)) if part != 1 else 1
    saved.write_bytes(data[:length])
    with pytest.raises(DMSError) as error:
        read_checkpoint(str(saved))
    assert str(saved) in str(error.value)
    assert '\n' not in str(error.value)


def test_flipped_bit(saved):
    """Torch itself does not look at the checksums."""
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(bytes(data))
    with pytest.raises(DMSError, match='damaged'):
        read_checkpoint(str(saved))


def test_other_files(tmp_path):
    path = tmp_path / 'notes.txt'
    path.write_text('no checkpoint')
    with pytest.raises(DMSError, match='notes.txt'):
        read_checkpoint(str(path))
    with pytest.raises(DMSError, match='does not exist'):
        read_checkpoint(str(tmp_path))
    torch.save([1, 2], str(path))
    with pytest.raises(DMSError, match='a list, not a dict'):
        read_checkpoint(str(path))


def test_weights_with_and_without_meta():
    state = nn.Linear(2, 2).state_dict()
    assert state_dict_of(dict(state_dict=state), 'a') is state
    assert state_dict_of(state, 'a') is state
    with pytest.raises(DMSError, match='a.pth contains no weights'):
        state_dict_of(dict(meta={}), 'a.pth')


def test_check_fits():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    state = model.state_dict()
    check_fits(model, {**state, 'more': torch.ones(1)}, 'a.pth')
    check_fits(model, {f'module.{k}': v for k, v in state.items()}, 'a.pth')
    with pytest.raises(DMSError, match=r"a.pth .* no '0.bias'"):
        partial = {k: v for k, v in state.items() if k != '0.bias'}
        check_fits(model, partial, 'a.pth')
    other = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 4)).state_dict()
    with pytest.raises(DMSError, match=r'\[5, 2\] .* \[3, 2\] \(and 2 more'):
        check_fits(model, other, 'a.pth')


def config(**kwargs):
    return Config(dict(model=dict(type='A'), **kwargs))


def test_config_without_checkpoints():
    assert check_config_checkpoints(config()) is None
    remote = config(load_from='https://example.com/a.pth', resume=True)
    assert check_config_checkpoints(remote) is None


def test_checkpoint_to_resume_from(saved, tmp_path):
    path = str(saved)
    assert check_config_checkpoints(config(load_from=path)) is None
    state, name = check_config_checkpoints(config(load_from=path, resume=True))
    assert name == path and set(state) == {'weight', 'bias'}
    weights = str(tmp_path / 'subnet.pth')
    torch.save(dict(state_dict=state, meta={}), weights)
    with pytest.raises(DMSError, match='only weights'):
        check_config_checkpoints(config(load_from=weights, resume=True))


def test_checkpoint_of_a_part_of_the_model(tmp_path):
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'no.pth'))
    parts = dict(architecture=dict(stages=[dict(init_cfg=[init_cfg])]))
    with pytest.raises(DMSError, match='no.pth does not exist'):
        check_config_checkpoints(Config(dict(model=parts)))
