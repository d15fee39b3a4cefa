# As autoformer.py, in the numbers of AutoFormer-B: embedding 528, 576 or 624,
# 8 to 10 heads, MLP ratios 3, 3.5 and 4, 14 to 16 layers.
_base_ = './autoformer.py'

space = dict(
    channel_unit_cfg=dict(
        units={
            'backbone.patch_embed.projection': dict(
                init_args=dict(step=1 / 13, min_ratio=528 / 624)
            ),
            '*.attn.heads': dict(init_args=dict(min_ratio=0.8)),
            '*.ffn.layers.0.0': dict(init_args=dict(min_ratio=0.75)),
        }
    ),
    depth_unit_cfg=dict(default_args=dict(min_blocks=14)),
)
