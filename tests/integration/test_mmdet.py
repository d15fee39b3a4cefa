"""RetinaNet's own configs: search, export, retraining."""

import pytest
import torch

CONFIGS = 'retinanet/retinanet_r50_fpn_dms-{}_1x_coco.py'
SIZE = 64


@pytest.fixture(scope='module')
def options(coco_data, small_loaders):
    """Tiny data, random weights, three classes, two iterations per epoch."""
    found = dict(
        small_loaders(4),
        train_cfg=dict(max_epochs=2, val_interval=2),
    )
    for split, source in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = f'{split}_dataloader.dataset'
        resize = 2 if split == 'train' else 1
        found.update(
            {
                f'{dataset}.data_root': f'{coco_data}/',
                f'{dataset}.ann_file': f'annotations/{source}.json',
                f'{dataset}.data_prefix.img': 'images/',
                f'{dataset}.metainfo': dict(
                    classes=('WBC', 'RBC', 'Platelets')
                ),
                f'{dataset}.pipeline.{resize}.scale': (SIZE, SIZE),
            }
        )
    for split in ('val', 'test'):
        ann_file = f'{coco_data}/annotations/val.json'
        found[f'{split}_evaluator.ann_file'] = ann_file
    model = 'model.architecture'
    found[f'{model}.bbox_head.num_classes'] = 3
    found[f'{model}.backbone.init_cfg'] = None
    found[f'{model}.test_cfg.score_thr'] = 0.0
    return found


@pytest.fixture(scope='module')
def search(read_config, options, tmp_path_factory):
    """Runner of a finished search."""
    from mmengine.runner import Runner

    folder = tmp_path_factory.mktemp('search')
    cfg = read_config(CONFIGS.format('search'), folder, options)
    cfg.model.architecture.init_cfg = None
    cfg.model.mutator.parse_cfg.demo_input = (1, 3, SIZE, SIZE)
    cfg.optim_wrapper.paramwise_cfg.structure.lr = 5e-2
    cfg.custom_hooks[0].loss_weight = 10.0
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_search(search):
    mutator = search.model.mutator
    assert mutator.topk.pruning_ratio.max() > 0.1
    assert mutator.topk.num_updates == 4
    assert 'val/coco/bbox_mAP' in search.message_hub.log_scalars


def test_retraining(search, read_config, options, tmp_path):
    from mmengine.runner import Runner

    cfg = read_config(CONFIGS.format('retrain'), tmp_path, options)
    folder = f'{search.work_dir}/subnet/subnet'
    cfg.model.structure = f'{folder}.yaml'
    cfg.model.init_cfg.checkpoint = f'{folder}.pth'
    cfg.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(cfg)
    runner.train()
    detector = runner.model
    assert type(detector).__name__ == 'RetinaNet'
    exported = torch.load(f'{folder}.pth')['state_dict']
    shapes = {name: value.shape for name, value in exported.items()}
    assert shapes == {n: v.shape for n, v in detector.state_dict().items()}
    before = exported['bbox_head.retina_cls.weight']
    after = detector.bbox_head.retina_cls.weight
    assert not torch.equal(before, after)
    assert torch.allclose(before, after, atol=1e-2)
