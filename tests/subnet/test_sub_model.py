import copy

import pytest
import torch
from mmengine.runner import load_checkpoint

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import MODELS
from dms_mmrazor.search.export import export_subnet, save_subnet
from dms_mmrazor.subnet import prune
from dms_mmrazor.subnet.structure import structure_to_dict


@pytest.fixture(scope='module')
def subnet(zoo, randomize_structure, randomize_model):
    """A random subnet of the CIFAR network."""
    search = zoo.algorithm(zoo.cifar_resnet())
    search.init_weights()
    randomize_model(search.architecture)
    randomize_structure(search.mutator, seed=5)
    subnet = export_subnet(search, divisor=1)
    assert subnet.structure.removed_blocks
    return subnet


@pytest.fixture(scope='module')
def paths(subnet, tmp_path_factory):
    return save_subnet(subnet, str(tmp_path_factory.mktemp('subnet')))


@pytest.fixture(scope='module')
def structures(zoo, randomize_structure):
    """Random structures of some ResNets."""
    found = {}
    for depth in (18, 50):
        mutator = zoo.algorithm(zoo.resnet(depth), 64).mutator
        randomize_structure(mutator, seed=1)
        found[depth] = mutator.structure()
    return found


def shapes(model):
    return {k: tuple(v.shape) for k, v in model.state_dict().items()}


def sub_model(architecture, structure, **kwargs):
    return MODELS.build(
        dict(
            type='DMSSubModel',
            architecture=copy.deepcopy(architecture),
            structure=structure,
            **kwargs,
        )
    )


def test_is_the_plain_class_with_plain_keys(zoo, subnet, paths):
    reference = zoo.plain(zoo.cifar_resnet())
    model = sub_model(zoo.cifar_resnet(), paths['structure'])
    assert type(model) is type(reference)
    plain = {type(module) for module in reference.modules()}
    assert {type(module) for module in model.modules()} == plain
    assert set(model.state_dict()) <= set(reference.state_dict())
    assert shapes(model) == shapes(subnet.model)


def test_loads_the_weights_of_the_search_strictly(zoo, subnet, paths, batch):
    model = sub_model(zoo.cifar_resnet(), paths['structure']).eval()
    load_checkpoint(model, paths['weights'], strict=True)
    image = batch()['inputs']
    with torch.no_grad():
        assert torch.equal(model(image), subnet.model.eval()(image))


@pytest.mark.parametrize('form', ['file', 'dict', 'object'])
def test_weights_from_init_cfg(zoo, subnet, paths, form):
    structure = {
        'file': paths['structure'],
        'dict': structure_to_dict(subnet.structure),
        'object': subnet.structure,
    }[form]
    init_cfg = dict(type='Pretrained', checkpoint=paths['weights'])
    model = sub_model(zoo.cifar_resnet(), structure, init_cfg=init_cfg)
    model.init_weights()
    for name, value in subnet.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_checkpoints_of_the_supernet_are_dropped_from_lists(zoo, subnet):
    plain = zoo.plain(zoo.cifar_resnet())
    init = dict(type='Kaiming', layer='Conv2d')
    checkpoint = dict(type='Pretrained', checkpoint='missing.pth')
    plain.backbone.init_cfg = [init, checkpoint]
    plain.head.init_cfg = (checkpoint,)
    model = sub_model(plain, subnet.structure)
    assert model.backbone.init_cfg == [init]
    assert model.head.init_cfg is None
    model.init_weights()


def test_a_built_architecture(zoo, subnet):
    plain = zoo.plain(zoo.cifar_resnet())
    model = sub_model(plain, subnet.structure)
    assert shapes(model) == shapes(subnet.model)
    with pytest.raises(DMSError, match='data_preprocessor'):
        sub_model(plain, subnet.structure, data_preprocessor=None)


def test_starts_from_the_initialization_of_the_architecture(zoo, paths):
    cfg = zoo.cifar_resnet()
    # Weights of the supernet do not fit and are not even looked for.
    missing = dict(type='Pretrained', checkpoint='no/such/file.pth')
    cfg['init_cfg'] = missing
    cfg['backbone']['init_cfg'] = missing
    model = sub_model(cfg, paths['structure'])
    model.init_weights()
    assert model.backbone.conv1.weight.std() > 0


def test_the_preprocessor_of_the_runner_reaches_the_architecture(zoo, paths):
    preprocessor = dict(
        type='mmpretrain.ClsDataPreprocessor', mean=[3.0] * 3, std=[2.0] * 3
    )
    model = sub_model(
        zoo.cifar_resnet(), paths['structure'], data_preprocessor=preprocessor
    )
    assert model.data_preprocessor.mean.flatten().tolist() == [3.0] * 3


@pytest.mark.parametrize('classes', [10, 7])
def test_other_numbers_of_classes(zoo, paths, batch, classes):
    model = sub_model(
        zoo.cifar_resnet(num_classes=classes), paths['structure']
    )
    assert model(batch()['inputs']).shape == (4, classes)
    losses = model(**batch(num_classes=classes), mode='loss')
    assert torch.isfinite(losses['loss'])
    assert model.head.fc.out_features == classes


@pytest.mark.parametrize(
    'given, wanted', [(50, 101), (50, 18), (18, 50), (50, 34)]
)
def test_a_structure_of_another_resnet(zoo, structures, given, wanted):
    with pytest.raises(DMSError, match='another architecture') as error:
        sub_model(zoo.resnet(wanted), structures[given])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('base', [8, 32])
def test_a_structure_of_another_width(zoo, subnet, base):
    cfg = zoo.cifar_resnet()
    cfg['backbone'].update(base_channels=base, stem_channels=base)
    cfg['head']['in_channels'] = base * 4
    with pytest.raises(DMSError, match='another architecture'):
        sub_model(cfg, subnet.structure)


def test_resnet50_subnet(zoo, structures):
    model = sub_model(zoo.resnet(50), structures[50])
    expected = prune(zoo.plain(zoo.resnet(50)), structures[50])
    assert shapes(model) == shapes(expected)


def test_a_missing_structure(zoo):
    with pytest.raises(DMSError, match='none.yaml does not exist'):
        sub_model(zoo.cifar_resnet(), 'none.yaml')
    with pytest.raises(DMSError, match='`model.structure` must be.*got None'):
        sub_model(zoo.cifar_resnet(), None)
