import copy
import random
import re

import pytest
import torch
from torch import nn

from dms_mmrazor import Search
from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.outputs import first_difference
from dms_mmrazor.models.mutators import DMSMutator
from dms_mmrazor.search.export import export_subnet, structure_masks
from dms_mmrazor.subnet import Structure, surgery
from dms_mmrazor.supernet.difference import compare, max_difference
from dms_mmrazor.supernet.plain import plain_copy
from dms_mmrazor.supernet.verify import Comparison


class Reading(nn.Module):
    """A model that looks at its channels where no tracer sees it."""

    def __init__(self, look):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.look = look
        self.second = nn.Conv2d(8, 5, 1)

    def forward(self, image):
        return self.second(self.look(self.first(image)))


def roll_unseen():
    """Channels in another order, by a hook: masks and cuts do not match."""
    layer = nn.Identity()
    layer.register_forward_hook(lambda module, args, x: torch.roll(x, 1, 1))
    return layer


class Weigh(nn.Module):
    """Its number of channels is fixed, and it has no weight to cut."""

    def forward(self, image):
        return image * torch.arange(1.0, 9.0).view(8, 1, 1)


def prepare(model, **kwargs):
    mutator = DMSMutator(parse_cfg=dict(demo_input=(1, 3, 4, 4)), **kwargs)
    mutator.prepare_from_supernet(model)
    return mutator


@pytest.mark.parametrize(
    'look, words',
    [
        (roll_unseen(), 'computes something else than the masked supernet'),
        (Weigh(), 'a random subnet does not run'),
    ],
)
def test_a_misunderstood_model_is_found_before_the_search(look, words):
    random.seed(0)
    torch.manual_seed(0)
    model = Reading(look)
    with pytest.raises(DMSError, match=words) as error:
        prepare(copy.deepcopy(model))
    assert 'mutator.exclude' in str(error.value)
    assert prepare(copy.deepcopy(model), verify=False).units
    with pytest.raises(DMSError, match='no searchable unit'):
        prepare(model, exclude=['first'])


def test_the_module_and_what_to_exclude_are_named():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), Reading(roll_unseen())
    )
    with pytest.raises(DMSError, match='first seen in `2.second`') as error:
        prepare(copy.deepcopy(model))
    assert "mutator.exclude=['2.first']" in str(error.value)
    mutator = prepare(model, exclude=['2.first'])
    assert [unit.name for unit in mutator.units] == ['0', '1']


def test_an_input_that_does_not_fit_is_named():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 9, 5)
    )
    with pytest.raises(DMSError, match='demo_input') as error:
        prepare(model)
    assert '(1, 3, 4, 4)' in str(error.value)
    assert '`2` (Linear)' in str(error.value)


def test_values_that_are_no_numbers_differ():
    one = nn.Conv2d(3, 4, 1)
    two = copy.deepcopy(one)
    with torch.no_grad():
        two.bias[0] = float('nan')
    image = torch.rand(1, 3, 2, 2)
    assert max_difference(one, two, image) == float('inf')
    assert max_difference(two, one, image) == float('inf')


class Magnifying(nn.Module):
    """Nothing but rounding is left in single precision."""

    def forward(self, x):
        return torch.sin(1e6 * x)


def test_rounding_is_told_from_misunderstanding():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.Conv2d(64, 4, 1), Magnifying()
    )
    mutator = prepare(model)
    assert [unit.name for unit in mutator.units] == ['0']
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_verifying_leaves_no_trace(zoo):
    torch.manual_seed(0)
    search = zoo.algorithm(zoo.cifar_resnet())
    topk = search.mutator.topk
    for name, value in topk.state_dict().items():
        assert not value.any(), name
    assert search.mutator.masks.table.masks is None
    assert search.training


def test_outputs_are_compared_relative_to_their_scale():
    one, two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)
    assert max_difference(one, two, torch.rand(1, 3, 2, 2)) == float('inf')
    assert max_difference(one, one, torch.rand(1, 3, 2, 2)) == 0
    with torch.no_grad():
        two = copy.deepcopy(one)
        two.weight *= 1.1
        two.bias *= 1.1
    difference = max_difference(two, one, torch.rand(1, 3, 2, 2))
    assert difference == pytest.approx(0.1, rel=1e-3)


class Wrapped:
    """An output that is no sequence."""

    def __init__(self, features):
        self.features = features


class Wrapping(Reading):
    """Gives an object, around what ``wrap`` makes of the features."""

    def __init__(self, look, wrap):
        super().__init__(look)
        self.wrap = wrap

    def forward(self, image):
        return Wrapped(self.wrap(super().forward(image)))


def test_outputs_within_objects_are_proven():
    with pytest.raises(DMSError, match='mutator.exclude'):
        prepare(Wrapping(roll_unseen(), lambda x: x))
    assert prepare(Wrapping(nn.Identity(), lambda x: x)).units


def test_a_proof_of_nothing_is_an_error():
    model = Wrapping(nn.Identity(), lambda x: 'words')
    with pytest.raises(DMSError, match='mutator.verify=False'):
        prepare(copy.deepcopy(model))
    assert prepare(model, verify=False).units


class Drawing(Reading):
    """Adds random numbers for each channel, in evaluation, too."""

    def forward(self, image):
        x = self.first(image)
        return self.second(self.look(x) + 0.1 * torch.rand_like(x))


def test_random_numbers_are_no_misunderstanding():
    before = torch.get_rng_state()
    assert prepare(Drawing(nn.Identity())).units
    assert not torch.equal(torch.get_rng_state(), before)  # drawn by us alone
    with pytest.raises(DMSError, match='mutator.exclude'):
        prepare(Drawing(roll_unseen()))


class Counting(Reading):
    """Computes something else at every call."""

    calls = 0

    def forward(self, image):
        Counting.calls += 1
        return super().forward(image) + Counting.calls


def test_a_model_that_is_not_deterministic_is_named():
    with pytest.raises(DMSError, match='Counting is not deterministic'):
        prepare(Counting(nn.Identity()))


def test_a_subnet_that_cannot_be_cut_is_blamed_on_its_units(monkeypatch):
    narrow = surgery.narrow_layer

    def refuse(layer, outputs, inputs):
        if layer.out_channels == 5 and len(inputs) < 8:
            raise RuntimeError('cannot be cut')
        return narrow(layer, outputs, inputs)

    monkeypatch.setattr(surgery, 'narrow_layer', refuse)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), Reading(nn.ReLU())
    )
    with pytest.raises(DMSError, match='layer .2.second.: cannot') as error:
        prepare(copy.deepcopy(model))
    assert "mutator.exclude=['2.first']" in str(error.value)
    assert len(prepare(model, exclude=['2.first']).units) == 2


def test_running_out_of_memory_is_no_misunderstanding():
    class Full(nn.Module):
        def forward(self, x):
            if x.shape[1] < 8:
                raise RuntimeError('CUDA out of memory.')
            return x

    with pytest.raises(RuntimeError, match='^CUDA out of memory'):
        prepare(Reading(Full()))


class Rolled(nn.Module):
    """A numbered sequence of which one channel's place matters once."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3 if i == 0 else 8, 8, 1) for i in range(8)]
        self.layers = nn.Sequential(*layers)
        self.last, self.roll = nn.Conv2d(16, 4, 1), roll_unseen()

    def forward(self, x):
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index == 4:
                rolled = self.roll(x)
        return self.last(torch.cat([x, rolled], 1))


def test_one_of_a_family_is_blamed_and_the_advice_works():
    torch.manual_seed(0)
    model = Rolled()
    with pytest.raises(DMSError) as error:
        prepare(copy.deepcopy(model))
    assert "mutator.exclude=['layers.4']" in str(error.value)
    mutator = prepare(model, exclude=['layers.4'])
    assert len(mutator.units) == 7


class Split(nn.Module):
    """Halves of several layers, of which one half is misread."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.wide = nn.ModuleList(nn.Conv2d(8, 16, 1) for _ in range(2))
        self.back = nn.ModuleList(nn.Conv2d(16, 8, 1) for _ in range(2))
        self.last, self.roll = nn.Conv2d(8, 4, 1), roll_unseen()

    def forward(self, x):
        x = self.first(x)
        for wide, back in zip(self.wide, self.back):
            one, two = wide(x).chunk(2, 1)
            x = back(torch.cat([one, self.roll(two)], 1))
        return self.last(x)


def test_advice_with_brackets_works(follow_advice):
    excluded, mutator = follow_advice(
        lambda **kwargs: prepare(Split(), **kwargs)
    )
    assert excluded
    assert len(mutator.units) >= 3


def test_export_looks_twice_too():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(3, 64, 1), Magnifying())
    two = copy.deepcopy(one)
    with torch.no_grad():
        order = torch.arange(63, -1, -1)
        for model in (one, two):
            model[0] = nn.Sequential(model[0], nn.Conv2d(64, 4, 1))
        two[0][0].weight.copy_(one[0][0].weight[order])
        two[0][0].bias.copy_(one[0][0].bias[order])
        two[0][1].weight.copy_(one[0][1].weight[:, order])
        two[0][1].bias.copy_(one[0][1].bias)
    image = torch.rand(1, 3, 4, 4)
    tensors = list(one.parameters())
    places = [tensor.data_ptr() for tensor in tensors]
    assert max_difference(one, two, image) > 1e-4
    assert compare(one, two, image) < 1e-4
    assert [tensor.data_ptr() for tensor in tensors] == places
    assert all(tensor.dtype == torch.float32 for tensor in tensors)


class Compared(nn.Module):
    """One of two models; remembers the sizes that it ran on."""

    def __init__(self, error, least):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.error, self.least, self.seen = error, least, []

    def forward(self, image):
        self.seen.append(tuple(image.shape[2:]))
        assert image.shape[2] >= self.least
        return self.conv(image) + self.error


@pytest.mark.parametrize(
    'error, least, sizes, agree',
    [
        (0.0, 0, [(8, 8)], True),
        (0.0, 12, [(8, 8), (16, 16)], True),
        # In double precision, too, before it is believed.
        (1.0, 0, [(8, 8)] * 2 + [(16, 16)] * 2, False),
    ],
)
def test_the_demo_input_decides_where_a_small_one_does_not(
    error, least, sizes, agree
):
    supernet = Compared(error, least)
    plain = copy.deepcopy(supernet)
    plain.error = 0.0
    comparison = Comparison(supernet, plain, (1, 3, 16, 16), (1, 3, 8, 8))
    supernet.seen.clear()
    with comparison.alive():
        whole = Structure(
            (), (), layers=1, channels=0, resources={}, search={}
        )
        found = comparison.difference(whole)
    assert (found < 1e-4) is agree
    assert supernet.seen == sizes
    assert all(p.dtype == torch.float32 for p in supernet.parameters())


class Residual(nn.Module):
    """A block, perhaps with a number of its own that scales it."""

    def __init__(self, scaled=False):
        super().__init__()
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(())) if scaled else 1.0

    def forward(self, x):
        return x + self.scale * self.conv2(self.conv1(x).relu())


class Blind(nn.Module):
    """Its outputs tell nothing; features are compared, block by block."""

    def __init__(self, scaled=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(scaled) for _ in range(4)))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return torch.sigmoid(x + 200)


def test_features_of_removed_blocks_are_not_those_of_others():
    torch.manual_seed(0)
    search = Search(
        Blind(),
        torch.rand(2, 3, 16, 16),
        {'macs': 0.5},
        total_steps=4,
        mutator=dict(exclude=['stem']),
    )
    assert search.mutator.depth_units


class BlindTokens(nn.Module):
    """The same of tokens, with a norm that one linear layer reads."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3, 16)
        self.norm = nn.LayerNorm(16)
        self.one, self.two = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.two(self.one(self.norm(x)).relu())
        return torch.sigmoid(self.head(x.mean(1)) + 200)


def test_a_norm_without_its_affine_part_is_no_difference():
    torch.manual_seed(0)
    x = torch.rand(2, 5, 3)
    search = Search(BlindTokens(), x, 0.5, total_steps=4)
    mutator, norm = search.mutator, search.model.norm
    assert norm.affine_in_reader
    nn.init.normal_(norm.weight)
    plain = plain_copy(search.model)
    names = {module: name for name, module in plain.named_modules()}
    search._hook.remove()
    with mutator.masks.showing(structure_masks(mutator, full(mutator))):
        assert first_difference(search.model, plain, x, names) == ''


def full(mutator):
    return {unit.name: unit.max_kept for unit in mutator.units}


def test_a_number_of_a_removed_block_is_removed_with_it():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 16)
    search = Search(Blind(scaled=True), x, {'params': 0.3}, total_steps=4)
    mutator = search.mutator
    choices = {unit.name: 1 for unit in mutator.units}
    choices.update({s.name: s.min_blocks for s in mutator.depth_units})
    mutator.set_choices(choices)
    subnet = export_subnet(search, divisor=1)
    counted = sum(p.numel() for p in subnet.model.parameters())
    assert mutator.resource_of('params', choices) == counted


@pytest.mark.parametrize('dtype', [torch.float64, torch.complex64])
def test_an_example_has_the_type_of_most_weights(dtype):
    class Odd(nn.Sequential):
        def __init__(self):
            super().__init__()
            self.odd = nn.Parameter(torch.ones((), dtype=dtype))
            self.one = nn.Conv2d(3, 16, 3)
            self.two = nn.Conv2d(16, 4, 3)

        def forward(self, x):
            return self.two(self.one(x)) * self.odd.real.float()

    search = Search(Odd(), torch.rand(2, 3, 8, 8), 0.5, total_steps=4)
    assert [unit.name for unit in search.mutator.units] == ['one']


class Joined(nn.Module):
    """Adds its input where that happens to be as wide as its output."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(24, 16, 1)
        self.two = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        y = self.two(self.one(x).relu())
        return x + y if x.shape == y.shape else y


def test_code_that_asks_for_widths_is_proven_with_equal_ones():
    def build():
        head = nn.Conv2d(16, 4, 1)
        return nn.Sequential(nn.Conv2d(3, 24, 1), nn.ReLU(), Joined(), head)

    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(DMSError, match=r'mutator\.exclude=') as error:
        Search(build(), x, 0.9, total_steps=2)
    (names,) = re.findall(r'exclude=\[(.*?)\]', str(error.value))
    exclude = re.findall("'(.*?)'", names)
    Search(build(), x, 0.9, 2, mutator=dict(exclude=exclude))
