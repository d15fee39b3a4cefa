"""Groups that the config declares, and modules that it describes."""

import pytest
from torch import nn
from torch.nn import functional as F

from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.mutators import DMSMutator


class Padded(nn.Module):
    """Gives its channels and zeros, in a way that no tracer follows."""

    def __init__(self, mixed=False):
        super().__init__()
        self.mixed = mixed

    def forward(self, x):
        if self.mixed:
            x = x.roll(1, 1)
        return F.pad(x, (0, 0, 0, 0, 0, 4))


class Positions(nn.Module):
    """Mixes positions, of each channel alone, and has weights for that."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        return self.linear(x.flatten(2)).view(x.shape)


class Model(nn.Module):
    def __init__(self, middle=None):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = Padded() if middle is None else middle
        inputs = 8 if isinstance(middle, Positions) else 12
        self.second = nn.Conv2d(inputs, 6, 1)
        self.third = nn.Conv2d(6, 5, 1)

    def forward(self, image):
        x = self.middle(self.norm(self.first(image)))
        return self.third(self.second(x))


class Deciding(Model):
    def forward(self, image):
        if float(image.detach().sum()) > 1e9:
            raise ValueError('too bright')
        return super().forward(image)


TIED = dict(outputs=['first', 'norm'], inputs=['second 0:8'])


def prepare(model, groups=(), **parse_cfg):
    mutator = DMSMutator(
        parse_cfg=dict(demo_input=(1, 3, 4, 4), **parse_cfg), groups=groups
    )
    mutator.prepare_from_supernet(model)
    return mutator


def reports(mutator):
    return {layer.name: layer for layer in mutator.report().layers}


def test_what_the_tracer_cannot_follow_is_named():
    mutator = prepare(Model())
    assert [unit.name for unit in mutator.units] == ['second']
    layers = reports(mutator)
    assert not layers['first'].searched
    lost = 'the tracer loses its channels at second'
    assert layers['first'].outputs == layers['second'].inputs == lost


def test_tied_layers_are_one_unit():
    mutator = prepare(Model(), [TIED])
    assert [u.name for u in mutator.units] == ['first', 'second']
    assert not mutator.report().unsearched
    unit = mutator.units[0]
    assert unit.num_channels == 8
    assert {c.name for c in unit.output_related} == {'first', 'norm'}


def test_a_recorded_model_has_the_declared_units():
    mutator = prepare(Deciding(), [TIED])
    assert [u.name for u in mutator.units] == ['first', 'second']


@pytest.mark.parametrize('parse_cfg', [{}, dict(passes=['middle'])])
def test_a_module_that_passes_its_channels(parse_cfg):
    """A linear layer over positions is seen, and may be declared."""
    mutator = prepare(Model(Positions()), **parse_cfg)
    assert [u.name for u in mutator.units] == ['first', 'second']
    left = [layer.name for layer in mutator.report().unsearched]
    assert left == ['middle.linear']


def test_a_fixed_module_keeps_its_channels():
    mutator = prepare(Model(), fixed=['middle'])
    assert [unit.name for unit in mutator.units] == ['second']
    layers = reports(mutator)
    assert '`parse_cfg.fixed` keeps middle' in layers['first'].outputs
    assert '`parse_cfg.fixed` keeps middle' in layers['second'].inputs


def test_a_wrong_declaration_is_found_before_the_search():
    with pytest.raises(DMSError, match='random subnet') as error:
        prepare(Model(Padded(mixed=True)), [TIED])
    assert "mutator.exclude=['first']" in str(error.value)
    assert 'first seen in `second`' in str(error.value)


@pytest.mark.parametrize(
    'group, words',
    [
        (dict(outputs=['first']), '`inputs` must be a list of layers'),
        (dict(TIED, output=['first']), 'must be a dict of'),
        (dict(TIED, inputs=['secnd']), "Did you mean one of ['second'"),
        (dict(TIED, inputs=['middle']), 'no conv, linear or norm layer'),
        (dict(TIED, inputs=['second 0:99']), 'has 12 channels, not 0:99'),
        (dict(TIED, inputs=['second a']), "is not 'layer start:end'"),
        (dict(TIED, inputs=['third']), 'one number must divide'),
        (dict(TIED, inputs=['third 0:3']), 'cuts through the channels 0:6'),
    ],
)
def test_mistakes_in_groups_are_named(group, words):
    with pytest.raises(DMSError) as error:
        prepare(Model(), [group])
    assert words in str(error.value)
    assert '`mutator.groups[0]' in str(error.value)


@pytest.mark.parametrize('key', ['passes', 'fixed'])
def test_mistakes_in_names_of_modules(key):
    with pytest.raises(DMSError, match=r"one of \['middle'"):
        prepare(Model(), **{key: ['midle']})
    with pytest.raises(DMSError, match='must be a list of names'):
        prepare(Model(), **{key: 'middle'})
