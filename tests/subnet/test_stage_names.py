import pytest

from dms_mmrazor.subnet.structure import split_name


@pytest.mark.parametrize(
    'name, stage, rest',
    [
        ('backbone.layer1.0.conv1', 'backbone.layer1', '0.conv1'),
        ('backbone.conv1', 'backbone', 'conv1'),
        ('features.0', 'features', '0'),
        ('conv1', '', 'conv1'),
    ],
)
def test_split_name(name, stage, rest):
    assert split_name(name) == (stage, rest)
