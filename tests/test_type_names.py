import pytest
from mmengine.config import Config

from dms_mmrazor.type_names import type_name


class Hook:
    pass


@pytest.mark.parametrize('kind', ['Hook', 'mmrazor.Hook', 'a.b.Hook', Hook])
def test_texts_and_classes(kind):
    assert type_name(dict(type=kind)) == 'Hook'
    assert type_name(Config(dict(part=dict(type=kind))).part) == 'Hook'
    assert type_name(dict(constructor=kind), 'constructor') == 'Hook'


@pytest.mark.parametrize('cfg', [{}, dict(type=None), dict(type='')])
def test_nothing(cfg):
    assert type_name(cfg) == ''
