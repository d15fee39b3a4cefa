"""Short trainings dealt out over the ranks of a process group."""

import json
import os
import subprocess
import sys

SCRIPT = """
import json, sys
import torch.distributed as dist
from dms_mmrazor.ranking import rank_subnets
from dms_mmrazor.ranking.scores import Trajectory

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group(
    'gloo', init_method='file://' + folder + '/store', rank=rank, world_size=2)
mine = []

def train(quality, seed):
    mine.append([quality, seed])
    return Trajectory([quality], [1.0], (), -quality, {'training': 1.0})

names = {'a': 1.0, 'b': 2.0, 'c': 3.0}
ranking = rank_subnets(names, train, seeds=(0, 1), resources={},
                       folder=folder + '/out')
rows = [(row['name'], row['score']) for row in ranking.rows]
with open(f'{folder}/{rank}.json', 'w') as file:
    json.dump([rows, mine], file)
dist.destroy_process_group()
"""


def test_ranks_share_the_trainings_and_the_ranking(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', SCRIPT, str(tmp_path), str(rank)],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        for rank in (0, 1)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    first, second = (
        json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1)
    )
    assert first[0] == second[0] == [['a', -1.0], ['b', -2.0], ['c', -3.0]]
    assert len(first[1]) == len(second[1]) == 3
    assert not [run for run in first[1] if run in second[1]]
    assert (tmp_path / 'out' / 'ranking.json').is_file()
