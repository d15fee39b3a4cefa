"""Models that nothing was made for: they work, or the message tells how."""

import os.path as osp
import re

import mmpretrain
import pytest
from mmengine.config import Config

from dms_mmrazor.errors import DMSError

SIZE = 64
CONFIGS = osp.join(osp.dirname(mmpretrain.__file__), '.mim/configs')
UNTRIED = [
    'poolformer/poolformer_s12.py',
    'van/van_tiny.py',
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize('name', UNTRIED)
def test_it_works_or_the_message_tells_how(family, name):
    path = osp.join(CONFIGS, '_base_', 'models', name)
    architecture = Config.fromfile(path).model.to_dict()
    architecture['type'] = 'mmpretrain.ImageClassifier'
    architecture['_scope_'] = 'mmpretrain'
    mutator = {}
    try:
        search = family.search(architecture, SIZE)
    except DMSError as error:
        text = str(error)
        module, names = re.search(
            r'`([\w.]+)`.*`mutator\.exclude=\[(.*?)\]`', text
        ).groups()
        assert module.startswith('backbone')
        mutator = dict(exclude=re.findall(r"'(.*?)'", names))
        search = family.search(architecture, SIZE, mutator=mutator)
    report = search.mutator.report()
    assert len(report.units) > 1
    for layer in report.unsearched:
        assert layer.inputs and layer.outputs
    family.structures(search, SIZE, number=2)
