"""An inherited collate function works; without the mend it does not."""

import pytest
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import dms_mmrazor.plugin  # noqa: F401
from dms_mmrazor.compat import allow_inherited_collate


@FUNCTIONS.register_module()
def sum_collate(batch, start=0):
    return sum(batch, start)


def _build(build, **collate):
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=[1, 2, 3, 4],
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='sum_collate', start=10, **collate),
    )
    return build(loader), loader


def test_stock_mmengine_passes_the_note_on():
    loader, _ = _build(Runner.build_dataloader.__wrapped__, _scope_='mmdet')
    with pytest.raises(TypeError, match='_scope_'):
        next(iter(loader))


@pytest.mark.parametrize('note', [{}, dict(_scope_='mmdet')])
def test_collate_is_found_and_called(note):
    loader, cfg = _build(Runner.build_dataloader, **note)
    assert list(loader) == [13, 17]
    assert cfg['collate_fn'] == dict(type='sum_collate', start=10, **note)


def test_mmyolos_function_is_found():
    pytest.importorskip('mmyolo.datasets')
    from mmyolo.datasets.utils import yolov5_collate

    collate = dict(type='yolov5_collate', _scope_='mmyolo')
    loader = Runner.build_dataloader(
        dict(
            batch_size=1,
            num_workers=0,
            dataset=[1],
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=collate,
        )
    )
    assert loader.collate_fn.func is yolov5_collate
    assert loader.collate_fn.keywords == {}


def test_it_is_mended_once():
    before = Runner.build_dataloader
    allow_inherited_collate()
    assert Runner.build_dataloader is before


def test_built_loaders_pass():
    loader = DataLoader([1, 2])
    assert Runner.build_dataloader(loader) is loader
