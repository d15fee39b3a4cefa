from dms_mmrazor.subnet import (
    LayerSlice,
    StageStructure,
    Structure,
    UnitStructure,
)
from dms_mmrazor.visualization.grouping import Bar, group_units


def unit(name, size, kept, *outputs):
    slices = tuple(LayerSlice(layer, 0, size) for layer in outputs or [name])
    return UnitStructure(name, size, tuple(range(kept)), slices, ())


def structure(units, stages=()):
    return Structure(tuple(units), tuple(stages), 9, 99, {}, {})


def test_order_and_titles():
    groups = group_units(
        structure(
            [
                unit('backbone.conv1', 8, 4),
                unit('backbone.layer2.0.conv1', 8, 8),
                unit('backbone.layer1.0.conv.conv', 6, 2),
                unit('backbone.layer2.1.conv1', 8, 3),
            ]
        )
    )
    assert [g.title for g in groups] == ['backbone', 'layer2', 'layer1']
    assert groups[1].bars == (Bar('0.conv1', 8, 8), Bar('1.conv1', 3, 8))
    assert groups[2].bars == (Bar('0.conv', 2, 6),)


def test_parts_with_different_prefixes_keep_them():
    units = [unit('backbone.0.conv', 4, 2), unit('neck.0.conv', 4, 2)]
    titles = [group.title for group in group_units(structure(units))]
    assert titles == ['backbone', 'neck']


def test_removed_blocks():
    stage = StageStructure('net.layer1', ('net.layer1.1', 'net.layer1.2'), ())
    groups = group_units(
        structure(
            [
                unit('net.layer1.1.conv1', 8, 5),
                unit('net.stem', 8, 5, 'net.stem', 'net.layer1.1.conv2'),
            ],
            [stage._replace(kept=('net.layer1.2',))],
        )
    )
    assert groups[0].blocks == (('1', False), ('2', True))
    assert groups[0].bars == (Bar('1.conv1', 0, 8),)
    assert groups[1].bars == (Bar('stem', 5, 8),)


def test_blocks_inside_of_a_layer():
    names = tuple(f'backbone.stage2.1.blocks.{i}' for i in range(3))
    stage = StageStructure('backbone.stage2.1.blocks', names, names[1:])
    (group,) = group_units(structure([], [stage]))
    assert group.blocks == (('0', False), ('1', True), ('2', True))


def test_stage_without_units():
    """Only the depth is searched."""
    stage = StageStructure('layer1', ('layer1.1',), ())
    (group,) = group_units(structure([], [stage]))
    assert group.title == 'layer1'
    assert group.bars == ()
