# The supernet of the search for DeiT-tiny's peer: DeiT-small with 16 layers
# instead of 12 (section A.4.1). Training it is needed only for the pipelines
# that start from a trained supernet.
_base_ = 'mmpretrain::deit/deit-small_4xb256_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=384,
            num_layers=16,
            num_heads=6,
            feedforward_channels=384 * 4,
        )
    )
)
