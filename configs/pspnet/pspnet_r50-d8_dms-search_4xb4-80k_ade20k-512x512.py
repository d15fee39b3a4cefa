# PSPNet: half of its MACs at 512x512, searched in mmsegmentation's own
# schedule from the trained segmentor. The auxiliary head, which runs only in
# training, follows the channels that it reads.
_base_ = [
    'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py',
    '../_base_/pipelines/pretrained.py',
]

algorithm = _base_.algorithm
algorithm.mutator.parse_cfg = dict(
    type='DMSChannelAnalyzer', demo_input=(1, 3, 512, 512)
)
architecture = _base_.model
architecture.pretrained = None
architecture.init_cfg = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/pspnet_r50-d8_512x512_80k_ade20k/'
    'pspnet_r50-d8_512x512_80k_ade20k_20200615_014128-15a8b914.pth',
)
model = dict(_delete_=True, architecture=architecture, **algorithm)

custom_hooks = [dict(_base_.resource_hook, target=0.5)]
