import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from dms_mmrazor.cli.coverage import (
    count_with_mmengine,
    measure_coverage,
    measure_model,
)
from dms_mmrazor.cli.short_training import find_recipe, why_not_trained
from dms_mmrazor.graph.example_inputs import ExampleInputs


def test_coverage_of_a_small_resnet(zoo):
    found = measure_coverage(
        zoo.cifar_resnet(depth=18), (1, 3, 32, 32), structures=3
    )
    assert found.layers == found.searched == 16
    assert found.unsearched == {}
    assert found.macs == found.mmengine_products < found.mmengine
    smallest, largest = found.reachable
    assert 0 < smallest < largest == found.macs
    agreement = found.agreement
    assert agreement.structures == 3
    assert 0 < agreement.outputs < 1e-5
    assert agreement.macs < 1e-9 and agreement.params < 1e-9
    assert agreement.onnx is None or agreement.onnx < 1e-4
    assert agreement.onnx_error == ''
    assert found.own_loss and found.untrained == ''


def test_coverage_of_a_plain_model():
    def build():
        return nn.Sequential(
            nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 24), nn.Linear(24, 3)
        )

    found = measure_model(build, torch.rand(2, 6), structures=2)
    assert found.layers == found.searched == 3 and found.units == 2
    assert found.macs == 6 * 32 + 32 * 24 + 24 * 3
    assert 0 < found.agreement.outputs < 1e-5
    assert found.agreement.macs < 1e-9 and found.agreement.params < 1e-9
    assert found.untrained == '' and found.mmengine is None


def test_a_training_that_ends_in_no_numbers_is_told():
    model = nn.Linear(2, 1)
    size = ExampleInputs((torch.rand(2, 2),))
    recipe = find_recipe(model, size)
    assert why_not_trained(model, recipe) == ''
    wild = recipe._replace(inputs=torch.full((2, 2), float('inf')))
    assert 'finite' in why_not_trained(model, wild)


def test_a_model_is_trained_by_its_own_loss(zoo):
    model = MODELS.build(zoo.cifar_resnet(depth=18))
    recipe = find_recipe(model, (1, 3, 32, 32))
    assert recipe.own_loss
    model.head.fc = nn.Linear(3, 10)  # only a pass finds that out
    assert 'shapes' in why_not_trained(model, recipe)


def test_unsearched_layers_keep_their_reason(zoo):
    found = measure_coverage(
        zoo.cifar_resnet(depth=18),
        (1, 3, 32, 32),
        mutator=dict(exclude=['backbone.layer1.*', 'backbone.conv1']),
        structures=1,
    )
    layers = [
        name
        for reason, names in found.unsearched.items()
        if 'mutator.exclude' in reason
        for name in names
    ]
    assert 'backbone.layer1.0.conv1' in layers
    assert len(layers) == found.layers - found.searched


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        fused = getattr(nn.functional, 'scaled_dot_product_attention', None)
        self.scaled_dot_product_attention = fused

    def forward(self, image):
        x = image.flatten(2).transpose(1, 2).repeat(1, 1, 8)[..., :8]
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return self.scaled_dot_product_attention(query, key, value)


@pytest.mark.skipif(
    not hasattr(nn.functional, 'scaled_dot_product_attention'),
    reason='this torch has no fused attention',
)
def test_fused_attention_is_written_out_for_the_counter():
    model = Attention()
    image = torch.rand(1, 3, 2, 5)
    expected = model(image)
    total, products = count_with_mmengine(model, (1, 3, 2, 5))
    assert total == 10 * 8 * 24
    assert products == 10 * 8 * 24 + 2 * 10 * 10 * 8
    torch.testing.assert_close(model(image), expected)
