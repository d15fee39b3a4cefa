"""Study 1: structures cut out of a trained network, without retraining.

Weights stay what they are; statistics of batch norms are computed anew for
all. One command, which goes on where it was stopped:

    DMS_CIFAR10=cifar10.tar.xz python \
        benchmarks/studies/structure_only.py residual --jobs 2
"""

import bed_runs

METHODS = (
    'uniform',
    'random',
    'l1',
    'taylor',
    'greedy',
    'dms',
    'depth-uniform',
    'mes',
    'sns',
    'get',
    'minmax',
)

if __name__ == '__main__':
    bed_runs.main(__doc__, 'structure_only', METHODS, retrained=False)
