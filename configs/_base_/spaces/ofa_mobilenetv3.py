# The space of once-for-all's MobileNetV3 on OFAMobileNetV3 (DMS paper,
# Tables 3 and 13): of each block 3/6, 4/6, 5/6 or all of the middle channels,
# of each stage 2 to 4 blocks, the first ones. A squeeze-excitation keeps the
# portion of its block. Kernel sizes and the resolution stay.
#
#   algorithm = dict(_base_.algorithm, mutator=_base_.space)
_base_ = '../pipelines/structure_only.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin', 'dms_mmrazor.models.spaces'],
    allow_failed_imports=False,
)

space = dict(
    type='mmrazor.DMSMutator',
    importance=dict(metric='index'),
    channel_unit_cfg=dict(
        type='DMSChannelUnit',
        units={
            '*.expand_conv.conv': dict(
                init_args=dict(step=1 / 6, min_ratio=0.5)
            ),
            # Always in the proportion of the block, in eights.
            '*.se.conv1.conv': dict(
                init_args=dict(
                    min_ratio=1.0, follows='...expand_conv.conv', mask_step=8
                )
            ),
        },
    ),
    exclude=[
        'backbone.conv1.conv',
        'backbone.conv2.conv',
        'backbone.first.*',
        'backbone.stages.*.linear_conv.conv',
        'head.layers.0.fc',
    ],
)
