# As autoformer.py, in the numbers of AutoFormer-S: embedding 320, 384 or 448,
# 5 to 7 heads, MLP ratios 3, 3.5 and 4, 12 to 14 layers.
_base_ = './autoformer.py'

space = dict(
    channel_unit_cfg=dict(
        units={
            'backbone.patch_embed.projection': dict(
                init_args=dict(step=1 / 7, min_ratio=320 / 448)
            ),
            '*.attn.heads': dict(init_args=dict(min_ratio=5 / 7)),
            '*.ffn.layers.0.0': dict(init_args=dict(min_ratio=0.75)),
        }
    ),
)
