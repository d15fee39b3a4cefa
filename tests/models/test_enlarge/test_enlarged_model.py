"""Supernets of models whose configs have no setting for them."""

import copy

import pytest
import torch
from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSSubModel
from dms_mmrazor.registry import MODELS
from dms_mmrazor.subnet.structure import structure_to_dict

SIZE = 64
MOBILENET = [
    [1, 16, 2, 1],
    [6, 24, 4, 2],
    [6, 32, 2, 2],
]


def classifier(backbone, channels, head='LinearClsHead', neck=True, **kwargs):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(backbone, type=f'mmpretrain.{backbone["type"]}'),
        neck=dict(type='mmpretrain.GlobalAveragePooling') if neck else None,
        head=dict(
            type=f'mmpretrain.{head}',
            num_classes=10,
            in_channels=channels,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
        **kwargs,
    )


def enlarged(architecture, **kwargs):
    return dict(
        type='mmrazor.EnlargedModel',
        architecture=architecture,
        demo_input=(1, 3, SIZE, SIZE),
        **kwargs,
    )


def build(cfg):
    return MODELS.build(copy.deepcopy(cfg))


def blocks(model, *names):
    return [len(model.get_submodule(name)) for name in names]


@pytest.fixture(scope='module')
def resnet(zoo):
    """Stages of 3, 4 and 6 blocks and widths of 8, 16 and 32."""
    cfg = zoo.cifar_resnet()
    cfg['backbone'].update(base_channels=8, stem_channels=8)
    cfg['head']['in_channels'] = 32
    return cfg


@pytest.fixture(scope='module')
def mobilenet():
    return classifier(dict(type='MobileNetV3', arch='small_050'), 288)


@pytest.fixture(scope='module')
def vit():
    arch = dict(
        embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48
    )
    backbone = dict(
        type='VisionTransformer', arch=arch, img_size=SIZE, patch_size=16
    )
    return classifier(backbone, 24, 'VisionTransformerClsHead', neck=False)


@pytest.fixture
def swin():
    arch = dict(embed_dims=12, depths=[2, 2, 2, 2], num_heads=[1, 2, 3, 6])
    backbone = dict(type='SwinTransformer', arch=arch, img_size=SIZE)
    return classifier(dict(backbone, window_size=2), 96)


def check_search(family, cfg):
    """The larger model is searched, exported and built again."""
    search = family.search(cfg, SIZE)
    assert not search.mutator.report().unsearched
    family.structures(search, SIZE, number=2)
    family.randomize_structure(search.mutator, 3)
    exported = family.exported(search)
    structure = structure_to_dict(search.mutator.structure())
    model = DMSSubModel(copy.deepcopy(cfg), structure)
    model.init_weights()
    model.load_state_dict(exported.state_dict())
    assert type(model) is type(build(cfg['architecture']))
    image = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(image), exported.eval()(image))
    return search


def test_deeper(family, resnet):
    cfg = enlarged(
        resnet, deepen={'backbone.layer*': 2.0, 'backbone.layer1': 1.5}
    )
    model = build(cfg)
    stages = ['backbone.layer1', 'backbone.layer2', 'backbone.layer3']
    plain = build(resnet)
    assert blocks(plain, *stages) == [3, 4, 6]
    after = blocks(model, *stages)
    assert after == [5, 8, 12]
    assert {type(m) for m in model.modules()} == {
        type(m) for m in plain.modules()
    }
    keys = [key for key, _ in model.backbone.layer1.named_children()]
    assert keys == [str(index) for index in range(after[0])]
    search = check_search(family, cfg)
    # The first stage has no downsampling block that must stay.
    removable = [after[0], after[1] - 1, after[2] - 1]
    found = dict(search.mutator.report().stages)
    assert found == dict(zip(stages, removable))


def test_new_blocks_have_weights_of_their_own(resnet):
    model = build(enlarged(resnet, deepen={'backbone.layer3': 2}))
    model.init_weights()
    convs = [block.conv1.weight for block in model.backbone.layer3][1:]
    assert len({float(w.sum()) for w in convs}) == len(convs)
    assert all(w.std() > 0 for w in convs)


def test_wider(family, resnet):
    cfg = enlarged(resnet, widen=1.5)
    model = build(cfg)
    assert model.backbone.conv1.out_channels == 16  # 12 is no multiple of 8
    assert model.backbone.layer2[0].conv1.out_channels == 24
    assert model.head.fc.in_features == 48
    model.init_weights()
    weight = model.backbone.layer2[0].conv1.weight
    assert not torch.equal(weight[:8], weight[16:])
    assert [type(m) for m in model.modules()] == [
        type(m) for m in build(resnet).modules()
    ]
    check_search(family, cfg)


def test_wider_in_parts(resnet):
    units = {'backbone.layer3.*.conv1': 2, 'backbone.layer3.1.conv1': 1.25}
    model = build(enlarged(resnet, widen=units))
    widths = [block.conv1.out_channels for block in model.backbone.layer3]
    assert widths[:3] == [64, 40, 64]
    assert model.backbone.layer3[0].conv2.out_channels == 32
    assert model.backbone.layer3[0].conv2.in_channels == 64


def test_wider_depthwise_and_squeeze_excitation(family, mobilenet):
    cfg = enlarged(mobilenet, widen=1.5)
    model, plain = build(cfg), build(mobilenet)
    pairs = zip(model.modules(), plain.modules())
    depthwise = [
        (new, old)
        for new, old in pairs
        if isinstance(old, nn.Conv2d) and old.groups > 1
    ]
    assert len(depthwise) == 11
    for new, old in depthwise:
        assert new.groups == new.in_channels == new.out_channels
        assert new.groups >= 1.3 * old.groups
    check_search(family, cfg)


def test_wider_groups(family):
    backbone = dict(type='ResNeXt', depth=50, groups=4, width_per_group=4)
    backbone.update(base_channels=16, stem_channels=16)
    cfg = enlarged(classifier(backbone, 512), widen=2)
    conv = build(cfg).backbone.layer1[0].conv2
    assert conv.groups == 4
    plain = build(cfg['architecture']).backbone.layer1[0].conv2
    assert conv.out_channels == 2 * plain.out_channels


def test_deeper_transformer(family, vit):
    cfg = enlarged(vit, deepen={'backbone.layers': 5 / 3})
    backbone = build(cfg).backbone
    assert len(backbone.layers) == backbone.num_layers == 5
    assert list(backbone.out_indices) == [4]
    search = check_search(family, cfg)
    assert dict(search.mutator.report().stages) == {'backbone.layers': 5}


def test_deeper_where_blocks_have_names(family, mobilenet):
    """MobileNetV3 calls its blocks by a list of names."""
    cfg = enlarged(mobilenet, deepen={'backbone.layer5': 1.4})
    backbone = build(cfg).backbone
    place = backbone.layers.index('layer8')
    names = ['layer8', 'layer8_1', 'layer8_2', 'layer9']
    assert backbone.layers[place : place + 4] == names
    assert backbone.out_indices == (14,)
    search = check_search(family, cfg)
    found = {s.name: s.num_blocks for s in search.mutator.depth_units}
    assert found['backbone.layer5'] == 6


def test_deeper_windows_go_on_shifting(swin):
    backbone = build(
        enlarged(swin, deepen={'backbone.stages.2.blocks': 2})
    ).backbone
    shifts = [b.attn.shift_size for b in backbone.stages[2].blocks]
    assert shifts == shifts[:2] * 2 and len(set(shifts)) == 2
    assert [len(s.blocks) for s in backbone.stages] == [2, 2, 4, 2]


def test_wider_parts_of_a_transformer(family, vit):
    cfg = enlarged(vit, widen={'*ffn*': 2, 'backbone.patch*': 4 / 3})
    model = build(cfg)
    for layer in model.backbone.layers:
        assert layer.ffn.layers[0][0].weight.shape == (96, 32)
    assert model.backbone.pos_embed.shape[-1] == 32
    check_search(family, cfg)


def test_constants(family, mobilenet):
    backbone = dict(type='MobileNetV2', out_indices=(3,))
    cfg = enlarged(
        classifier(backbone, 32),
        constants={'backbone.arch_settings': MOBILENET},
    )
    kind = type(build(cfg['architecture']).backbone)
    table = copy.deepcopy(kind.arch_settings)
    model = build(cfg)
    assert type(model.backbone) is kind
    assert model.backbone.arch_settings == MOBILENET
    assert kind.arch_settings == table
    stages = [f'backbone.layer{index}' for index in (1, 2, 3)]
    assert blocks(model, *stages) == [2, 4, 2]


def test_constants_by_the_default_scope():
    from mmengine.registry import init_default_scope

    init_default_scope('mmpretrain')
    cfg = classifier(dict(type='MobileNetV2', widen_factor=0.5), 1280)
    cfg['backbone']['type'] = 'MobileNetV2'
    table = [[t, c, 2 * n, s] for t, c, n, s in _table(cfg)]
    model = build(enlarged(cfg, constants={'backbone.arch_settings': table}))
    names = [f'backbone.layer{index}' for index in range(1, 8)]
    assert blocks(model, *names) == [2, 4, 6, 8, 6, 6, 2]


def _table(cfg):
    return build(cfg).backbone.arch_settings


def test_weights_of_the_enlarged_model(resnet, tmp_path):
    cfg = enlarged(resnet, widen=2)
    model = build(cfg)
    path = str(tmp_path / 'supernet.pth')
    torch.save(dict(state_dict=model.state_dict()), path)
    cfg['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    loaded = build(cfg)
    loaded.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_the_preprocessor_of_the_runner_reaches_the_architecture(resnet):
    preprocessor = dict(
        type='mmpretrain.ClsDataPreprocessor', mean=[3.0] * 3, std=[2.0] * 3
    )
    cfg = enlarged(resnet, data_preprocessor=preprocessor)
    mean = build(cfg).data_preprocessor.mean
    assert mean.flatten().tolist() == [3.0] * 3


def with_checkpoint(cfg):
    cfg = copy.deepcopy(cfg)
    cfg['backbone']['init_cfg'] = [dict(type='Pretrained', checkpoint='a.pth')]
    return cfg


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (
            dict(deepen={'backbone.layer9': 2}),
            ['`deepen`', "'backbone.layer9'", 'backbone.layer1, backbone.l'],
        ),
        (dict(deepen=0.5), ["`deepen['*']`", '0.5', '>= 1']),
        (dict(widen=0.5), ["`widen['*']`", '0.5', '>= 1']),
        (dict(widen='wide'), ['`widen', "'wide'"]),
        (dict(widen={'neck': 2}), ['`widen`', "'neck'", 'backbone.conv1']),
        (
            dict(constants={'head.arch': 1}),
            ['`constants`', 'LinearClsHead', "'arch'"],
        ),
        (
            dict(constants={'body.arch_settings': 1}),
            ['`constants`', "'body'", 'backbone, neck, head'],
        ),
    ],
)
def test_mistakes(resnet, kwargs, words):
    with pytest.raises(DMSError) as error:
        build(enlarged(resnet, **kwargs))
    assert all(word in str(error.value) for word in words), error.value
    assert '\n' not in str(error.value)


def test_a_checkpoint_of_the_smaller_model(resnet):
    with pytest.raises(DMSError, match='backbone.init_cfg` names a.pth'):
        build(enlarged(with_checkpoint(resnet), widen=2))


def test_heads_are_set_elsewhere(vit):
    with pytest.raises(DMSError, match=r'attn.* cannot be widened; .*`arch`'):
        build(enlarged(vit, widen=2))


class Relying(nn.Module):
    """A network; what stands between its layers is given."""

    def __init__(self, between):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 4, 1)
        self.register_buffer('shift', torch.rand(1, 8, 1, 1))
        self.between = between

    def forward(self, x):
        return self.second(self.between(self, self.first(x)))


def relying(between, **kwargs):
    return enlarged(dict(type=Relying, between=between), **kwargs)


def test_a_buffer_follows():
    model = build(relying(lambda net, x: x + net.shift, widen=2))
    assert model.first.out_channels == model.shift.shape[1] == 16


def test_code_that_does_not_follow():
    cfg = relying(lambda net, x: x + torch.zeros(1, 8, 1, 1), widen=2)
    with pytest.raises(DMSError, match='Relying does not run .*`widen`'):
        build(cfg)


def turned(net, x):
    """The channels from the last to the first, which is not followed."""
    return x[:, [7, 6, 5, 4, 3, 2, 1, 0]]


@pytest.mark.parametrize('pattern', ['*', 'first'])
def test_nothing_can_be_widened(pattern):
    """It says so, and why, instead of giving the model as it was."""
    with pytest.raises(DMSError, match='first .`getitem` changes their order'):
        build(relying(turned, widen={pattern: 2}))


class HalfRelying(Relying):
    """One that has a layer without anything awkward as well."""

    def __init__(self):
        super().__init__(turned)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1))

    def forward(self, x):
        return super().forward(self.stem(x))


def test_what_is_not_widened_is_logged(monkeypatch):
    texts = []
    monkeypatch.setattr(
        'dms_mmrazor.models.enlarge.widen.print_log',
        lambda text, **kwargs: texts.append(text),
    )
    model = build(enlarged(dict(type=HalfRelying), widen=2))
    assert model.stem[0].out_channels == 16
    assert model.first.out_channels == 8
    (text,) = texts
    assert 'first (`getitem` changes their order)' in text
    assert 'stem.0' not in text


def test_an_input_that_the_model_cannot_read(swin):
    cfg = enlarged(swin, deepen={'*': 2})
    cfg['architecture']['backbone']['window_size'] = 7
    with pytest.raises(DMSError, match='smaller than the window.*demo_input'):
        build(cfg)
