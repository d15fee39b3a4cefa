"""Study 2: structures of one resource, found in many ways, then retrained.

Every method gets the images of the same search and its structure the same
training from scratch. One command, which goes on where it was stopped:

    DMS_CIFAR10=cifar10.tar.xz python \
        benchmarks/studies/found_and_retrained.py residual --jobs 2
"""

import bed_runs

METHODS = (
    'uniform',
    'random',
    'compound',
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
    bed_runs.main(__doc__, 'found_and_retrained', METHODS, retrained=True)
