# AutoFormer's space on PlainAutoFormer (DMS paper, Table 16), coarse, as
# AutoFormer-T's: embedding 192, 216 or 240, heads 3 or 4 of 64 dims, the MLP
# 3.5 or 4 times the sampled embedding, 12 to 14 layers. With `fine_space`
# every number between.
#
#   algorithm = dict(_base_.algorithm, mutator=_base_.space)
_base_ = '../pipelines/structure_only.py'
custom_imports = dict(
    imports=['dms_mmrazor.plugin', 'dms_mmrazor.models.spaces'],
    allow_failed_imports=False,
)

embedding = 'backbone.patch_embed.projection'
space = dict(
    type='mmrazor.DMSMutator',
    importance=dict(metric='index'),
    channel_unit_cfg=dict(
        type='DMSChannelUnit',
        units={
            embedding: dict(init_args=dict(step=1 / 10, min_ratio=0.8)),
            '*.attn.heads': dict(init_args=dict(min_ratio=0.75)),
            # Numbers beside the whole embedding: 840 and 960 of 960.
            '*.ffn.layers.0.0': dict(
                init_args=dict(step=1 / 8, min_ratio=0.875, follows=embedding)
            ),
        },
    ),
    depth_unit_cfg=dict(type='DMSDepthUnit', default_args=dict(min_blocks=12)),
    exclude=['*.attn.qk_dims', '*.attn.v_dims'],
)
fine_space = dict(
    space,
    channel_unit_cfg=dict(
        type='DMSChannelUnit',
        units={
            embedding: dict(init_args=dict(min_ratio=0.8)),
            '*.attn.heads': dict(init_args=dict(min_ratio=0.75)),
            '*.ffn.layers.0.0': dict(
                init_args=dict(min_ratio=0.875, follows=embedding)
            ),
        },
    ),
)
