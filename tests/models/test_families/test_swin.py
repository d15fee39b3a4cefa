import pytest
import torch

SIZE = 64


def swin(window_size=4, **kwargs):
    backbone = dict(
        type='mmpretrain.SwinTransformer',
        arch=dict(embed_dims=24, depths=[2, 2, 2], num_heads=[3, 3, 6]),
        img_size=SIZE,
        window_size=window_size,
        out_indices=(2,),
        **kwargs,
    )
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=10,
            in_channels=96,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )


@pytest.mark.parametrize('kwargs', [dict(), dict(use_abs_pos_embed=True)])
def test_swin(family, kwargs):
    search = family.everything(swin(**kwargs), SIZE)
    report = search.mutator.report()
    assert len(report.layers) == 1 + 6 * 4 + 2 + 1
    # three embedding widths; per block: FFN, heads, q/k dims, v dims
    assert len(report.units) == 3 + 6 * 4
    assert [number for _, number in report.stages] == [2, 2, 2]
    reached = [layer.inputs + layer.outputs for layer in report.layers[1:-1]]
    assert not any('tracer' in text for text in reached)


def test_tables_of_position_biases_follow_their_heads(family):
    search = family.search(swin(), SIZE)
    name = 'backbone.stages.2.blocks.1.attn.w_msa'
    search.mutator.set_choices({f'{name}.heads': 4})
    attention = family.exported(search).backbone.stages[2].blocks[1].attn
    assert attention.w_msa.relative_position_bias_table.shape == (49, 4)
    assert attention.w_msa.num_heads == 4
    # A window of 4x4 has 16 tokens, an image of 64 has one of them here.
    x = torch.rand(2, 16, 96)
    with torch.no_grad():
        search.mutator.masks.use_hard_masks()
        block = search.architecture.backbone.stages[2].blocks[1]
        torch.testing.assert_close(
            attention(x, (4, 4)),
            block.attn(x, (4, 4)),
            rtol=1e-5,
            atol=1e-6,
        )
