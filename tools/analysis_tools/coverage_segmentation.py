"""Models of mmsegmentation and mmpose for a table of their own.

    pip install dms_mmrazor[segmentation]
    python tools/analysis_tools/search_coverage.py --group segmentation

Their packages need not be installed for the other tables.
"""

from typing import Any, Dict

from coverage_models import Case

MODELS = 'mmseg::_base_/models/'


def _mmseg(config: str, **options: Any) -> Case:
    """A segmentor; a `__` of an option is a dot below `model`."""
    pairs = {
        f'model.{key.replace("__", ".")}': value
        for key, value in options.items()
    }
    pairs['model.pretrained'] = None  # nothing is downloaded
    return Case(f'{MODELS}{config}', 64, 'mmseg', tuple(pairs.items()))


SEGMENTATION: Dict[str, Case] = {
    'UNet-S5, FCN head': _mmseg('fcn_unet_s5-d16.py'),
    'PSPNet-R50': _mmseg('pspnet_r50-d8.py'),
    'DeepLabV3+-R50': _mmseg('deeplabv3plus_r50-d8.py'),
    'SegFormer-B0': _mmseg('segformer_mit-b0.py'),
    'UPerNet-Swin-T': _mmseg('upernet_swin.py'),
}
POSE: Dict[str, Case] = {
    'Heatmaps-R50': Case(
        'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
        'td-hm_res50_8xb64-210e_coco-256x192.py',
        64,
        'mmpose',
    ),
}
