# SegFormer-B0: half of its MACs at 512x512, searched in mmsegmentation's own
# schedule from the trained segmentor.
_base_ = [
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    '../_base_/pipelines/pretrained.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 512, 512)
)
architecture = _base_.model
architecture.backbone.init_cfg = None
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/segformer/segformer_mit-b0_512x512_160k_ade20k/'
    'segformer_mit-b0_512x512_160k_ade20k_20210726_101530-8ffa8fda.pth',
)
model = dict(_delete_=True, architecture=architecture, **algorithm)

custom_hooks = [dict(_base_.resource_hook, target=0.5)]
