"""Table 9: a detector on BCCD, found in several ways and retrained.

YOLOv8 on blood cells; three searches, two trainings of each network they
find, beside uniform and compound networks of the same MACs. One command, which
goes on where it was stopped; further options are those of
``tools/compare_methods.py``:

    BCCD_ROOT=data/bccd/ python benchmarks/studies/detection.py --jobs 2
"""

import os
import os.path as osp
import subprocess
import sys

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CONFIG = 'configs/yolov8/yolov8_d50w25_dms-{}_fast_1xb8-16e_bccd.py'

OPTIONS = [
    *('--retrain', CONFIG.format('retrain')),
    *('--methods', 'uniform', 'compound', 'dms', 'depth-uniform'),
    *('--targets', '0.33', '--seeds', '3', '--trainings', '2'),
    *('--metric', 'coco/bbox_mAP'),
]

if __name__ == '__main__':
    tool = osp.join('tools', 'compare_methods.py')
    command = [sys.executable, tool, CONFIG.format('search'), *OPTIONS]
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    sys.exit(subprocess.call([*command, *sys.argv[1:]], cwd=ROOT))
