"""Small supernets of both spaces, with the spaces of the configs."""

import copy
import os.path as osp

import pytest

ROOT = osp.join(osp.dirname(osp.abspath(__file__)), *['..'] * 3)
SIZE = 16

OFA = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmrazor.OFAMobileNetV3',
        widths=(16, 24),
        strides=(1, 2),
        acts=('ReLU', 'HSwish'),
        squeezed=(False, True),
        depth=3,
        kernel_size=(3, 5),
        stem_channels=8,
        stem_stride=2,
        out_channels=40,
    ),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.StackedLinearClsHead',
        num_classes=5,
        in_channels=40,
        mid_channels=[48],
        act_cfg=dict(type='HSwish'),
    ),
)
AUTOFORMER = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmrazor.PlainAutoFormer',
        embed_dims=40,
        num_heads=4,
        depth=4,
        head_dims=8,
        img_size=SIZE,
        patch_size=4,
    ),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=40),
)
ARCHITECTURES = {'ofa': OFA, 'autoformer': AUTOFORMER}
FILES = {'ofa': 'ofa_mobilenetv3.py', 'autoformer': 'autoformer.py'}


class Spaces:
    """Builds what a test needs of a space."""

    size = SIZE

    def plain(self, name, **backbone):
        """A plain supernet with new weights."""
        from mmengine.registry import MODELS

        cfg = copy.deepcopy(ARCHITECTURES[name])
        cfg['backbone'].update(backbone)
        return MODELS.build(cfg)

    def mutator_cfg(self, name, fine=False):
        """The space of the config, for this size of image."""
        from mmengine.config import Config

        path = osp.join(ROOT, 'configs', '_base_', 'spaces', FILES[name])
        cfg = Config.fromfile(path)
        space = (cfg.fine_space if fine else cfg.space).to_dict()
        space['parse_cfg'] = dict(demo_input=(1, 3, SIZE, SIZE))
        if name == 'autoformer':
            space['depth_unit_cfg']['default_args']['min_blocks'] = 2
        return space

    def searched(self, name, fine=False):
        """A supernet with its prepared mutator."""
        from dms_mmrazor.models.mutators import DMSMutator

        model = self.plain(name)
        cfg = self.mutator_cfg(name, fine)
        cfg.pop('type')
        mutator = DMSMutator(**cfg)
        mutator.prepare_from_supernet(model)
        return model, mutator


@pytest.fixture(scope='session')
def spaces():
    """Both spaces, registered."""
    import dms_mmrazor.models.spaces  # noqa: F401, I001
    import dms_mmrazor.plugin  # noqa: F401

    return Spaces()
