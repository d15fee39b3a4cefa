"""What preparing and exporting a search takes beside the model itself."""

import os
import subprocess
import sys

CHILD = """
import resource
import torch
from torch import nn
from dms_mmrazor import Search

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(1)
layers = []
for _ in range(5):
    layers += [nn.Linear(3072, 3072), nn.ReLU()]
model = nn.Sequential(*layers, nn.Linear(3072, 10))
size = sum(p.numel() * 4 for p in model.parameters()) / 2**20
image = torch.rand(2, 3072)
model(image).sum().backward()  # a first step's own memory is not counted
model.zero_grad(set_to_none=False)
before = peak()
search = Search(model, image, 0.5, 1)
prepared = peak()
search.mutator.set_choices(search.mutator.sample_choices())
search.export(divisor=1)
exported = peak()
print((prepared - before) / size, (exported - before) / size)
"""


def test_peaks_stay_below_one_and_a_half_models():
    """In a process of its own: a peak never falls."""
    found = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', CHILD],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    prepared, exported = map(float, found.stdout.split()[-2:])
    assert 0 <= prepared <= exported <= 1.5, (prepared, exported)
