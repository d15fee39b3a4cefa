# Retraining of a found SegFormer, from the weights that the search left.
_base_ = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

architecture = _base_.model
architecture.backbone.init_cfg = None
subnet = (
    'work_dirs/segformer_mit-b0_dms-search_8xb2-160k_ade20k-512x512/subnet/'
)
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=architecture,
    structure=subnet + 'subnet.yaml',
    init_cfg=dict(type='Pretrained', checkpoint=subnet + 'subnet.pth'),
)
