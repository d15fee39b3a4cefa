# Training of a found structure: the plain training's config, and subnet.yaml.
_base_ = './resnet28_1xb64-10e_digits.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure='work_dirs/resnet28_dms-search_1xb64-16e_digits/subnet/'
    'subnet.yaml',
)
