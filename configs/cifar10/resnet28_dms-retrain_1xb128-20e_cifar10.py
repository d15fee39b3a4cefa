# Retraining of what the CIFAR-10 search found.
_base_ = [
    '../_base_/models/resnet28_cifar.py',
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/schedules/sgd_cosine.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['dms_mmrazor.plugin'], allow_failed_imports=False
)

structure = (
    'work_dirs/resnet28_dms-search_1xb128-4e_cifar10/subnet/subnet.yaml'
)
model = dict(
    _delete_=True,
    type='mmrazor.DMSSubModel',
    architecture=_base_.model,
    structure=structure,
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
