# UNet with an FCN head: half of its MACs at 512x1024, searched in
# mmsegmentation's own schedule from the trained segmentor. The auxiliary head,
# which runs only in training, follows the channels that it reads.
_base_ = [
    'mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py',
    '../_base_/pipelines/pretrained.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 512, 1024)
)
architecture = _base_.model
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/unet/fcn_unet_s5-d16_4x4_512x1024_160k_cityscapes/'
    'fcn_unet_s5-d16_4x4_512x1024_160k_cityscapes_20211210_145204-6860854e.pth',
)
model = dict(_delete_=True, architecture=architecture, **algorithm)

custom_hooks = [dict(_base_.resource_hook, target=0.5)]
