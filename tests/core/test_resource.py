import copy
import math

import pytest
import torch

from dms_mmrazor.core import Dim, ResourceModel, Term, resource_loss

DEVICES = ['meta'] + ['cuda'] * torch.cuda.is_available()
TERMS = [
    Term('conv1', 9.0, (Dim(3.0), Dim(units=((0, 1.0),)))),
    # A concatenation of two units and a constant; repeated channels.
    Term(
        'conv2',
        4.0,
        (Dim(2.0, ((0, 1.0), (1, 1.0))), Dim(units=((2, 3.0),))),
        1,
    ),
    Term('conv2', 1.0, (Dim(units=((2, 3.0),)),), 1),
    # Depthwise and square: one unit twice.
    Term('attention', 0.5, (Dim(units=((1, 1.0),)),) * 2, 0),
    Term('constant', 7.0, ()),
    Term('block constant', 5.0, (), 0),
]


def by_hand(kept, blocks):
    a, b, c = kept
    return {
        'conv1': 27 * a,
        'conv2': (4 * (2 + a + b) * 3 * c + 3 * c) * blocks[1],
        'attention': 0.5 * b * b * blocks[0],
        'constant': 7.0,
        'block constant': 5.0 * blocks[0],
    }


def random_inputs():
    generator = torch.Generator().manual_seed(0)
    kept = 50 * torch.rand(3, dtype=torch.float64, generator=generator)
    blocks = torch.rand(2, dtype=torch.float64, generator=generator)
    return kept, blocks


def test_values():
    model = ResourceModel(TERMS, 3, 2)
    kept, blocks = random_inputs()
    expected = by_hand(kept.tolist(), blocks.tolist())
    found = model.by_layer(kept, blocks)
    assert list(found) == list(expected)
    for layer, value in expected.items():
        assert math.isclose(found[layer], value)
    total = model(kept, blocks)
    assert total.dtype == torch.float64 and total.dim() == 0
    assert math.isclose(float(total), sum(expected.values()))
    assert model.by_term(kept, blocks).shape == (len(TERMS),)


def test_a_batch_of_networks():
    model = ResourceModel(TERMS, 3, 2)
    _, blocks = random_inputs()
    kept = 9 * torch.rand(5, 2, 3, dtype=torch.float64)
    found = model(kept, blocks)
    assert found.shape == (5, 2)
    for index in range(5):
        for row in range(2):
            torch.testing.assert_close(
                found[index, row], model(kept[index, row], blocks)
            )
    assert model.by_term(kept, blocks).shape == (5, 2, len(TERMS))
    with pytest.raises(ValueError, match=r'kept must have shape \[3\]'):
        model(kept[..., :2], blocks)


def test_gradient_against_finite_differences():
    model = ResourceModel(TERMS, 3, 2)
    kept, blocks = (value.requires_grad_() for value in random_inputs())
    assert torch.autograd.gradcheck(model, (kept, blocks))
    kept.data[1] = 0.0
    blocks.data[0] = 0.0
    assert torch.autograd.gradcheck(model, (kept, blocks))


def test_network(resnet50):
    kept = torch.tensor(resnet50.sizes)
    blocks = torch.ones(resnet50.num_blocks)
    assert sum(resnet50.sizes) == 11456 and resnet50.num_blocks == 12
    assert 4.0e9 < float(resnet50.macs(kept, blocks)) < 4.2e9
    assert 25e6 < float(resnet50.params(kept, blocks)) < 26e6


def test_float32_inputs_get_float32_gradients():
    model = ResourceModel(TERMS, 3, 2)
    kept = torch.ones(3, requires_grad=True)
    model(kept, torch.ones(2)).backward()
    assert kept.grad.dtype == torch.float32


def test_constants_only():
    model = ResourceModel([Term('a', 2.0, ()), Term('b', 3.0, ())], 0, 0)
    assert float(model(torch.zeros(0), torch.zeros(0))) == 5.0


@pytest.mark.parametrize('device', DEVICES)
def test_no_synchronization(device):
    # Tensors on the meta device have no values: reading one raises.
    model = ResourceModel(TERMS, 3, 2).to(device)
    kept = torch.ones(3, device=device, requires_grad=True)
    blocks = torch.ones(2, device=device, requires_grad=True)
    if device == 'cuda':
        torch.cuda.set_sync_debug_mode('error')
    try:
        resource_loss(model(kept, blocks), 10.0).backward()
    finally:
        if device == 'cuda':
            torch.cuda.set_sync_debug_mode('default')


def test_copies_and_state():
    model = ResourceModel(TERMS, 3, 2)
    inputs = random_inputs()
    assert torch.equal(copy.deepcopy(model)(*inputs), model(*inputs))
    assert not model.state_dict() and not list(model.parameters())


def test_a_dimension_that_goes_with_a_block():
    """Slices of a concatenation that only removable blocks give."""
    whole = Dim(1.0, ((0, 1.0),))
    slices = [whole, *(whole._replace(block=index) for index in range(2))]
    out = Dim(4.0)
    terms = [Term('cat', 3.0, (out, part)) for part in slices]
    terms.append(Term('inside', 1.0, (whole._replace(block=1),), block=0))
    model = ResourceModel(terms, 1, 2)
    kept = torch.tensor([5.0])
    for a, b in ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.5, 0.25)):
        found = float(model(kept, torch.tensor([a, b])))
        assert found == 3 * 4 * 6 * (1 + a + b) + 6 * a * b


@pytest.mark.parametrize(
    'current, expected',
    [(20.0, math.log(2)), (10.0, 0.0), (5.0, 0.0), (0.0, 0.0)],
)
def test_resource_loss(current, expected):
    resource = torch.tensor(current, dtype=torch.float64, requires_grad=True)
    loss = resource_loss(resource, 10.0)
    loss.backward()
    assert math.isclose(float(loss), expected, abs_tol=1e-12)
    assert float(resource.grad) == (1 / current if current > 10 else 0.0)
    same = resource_loss(resource, torch.tensor(10.0))
    assert torch.equal(same, loss)


@pytest.mark.parametrize(
    'terms, message',
    [
        ([], 'empty'),
        ([Term('a', 1.0, (Dim(units=((3, 1.0),)),))], "'a' uses unit 3"),
        ([Term('a', 1.0, (Dim(units=((-1, 1.0),)),))], "'a' uses unit -1"),
        ([Term('a', 1.0, (), 2)], "'a' is in block 2"),
        ([Term('a', 1.0, (Dim(1.0, block=2),))], "'a' is in block 2"),
        ([Term('a', math.inf, ())], "'a' has a number"),
        ([Term('a', 1.0, (Dim(math.nan),))], "'a' has a number"),
    ],
)
def test_errors_of_terms(terms, message):
    with pytest.raises(ValueError, match=message):
        ResourceModel(terms, 3, 2)


def test_errors_of_calls():
    model = ResourceModel(TERMS, 3, 2)
    with pytest.raises(ValueError, match=r'kept must have shape \[3\]'):
        model(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match=r'block_mask must have shape'):
        model(torch.ones(3), torch.ones(1))
    with pytest.raises(ValueError, match='target'):
        resource_loss(torch.tensor(1.0), 0.0)
