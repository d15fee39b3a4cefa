"""Published checkpoints by their keys and shapes."""

import pytest
import torch

from dms_mmrazor.errors import DMSError

WIDTHS, STEM, DEPTH = (16, 24), 8, 3


def norm(prefix, channels):
    return {
        f'{prefix}.{key}': shape
        for key, shape in dict(
            weight=(channels,),
            bias=(channels,),
            running_mean=(channels,),
            running_var=(channels,),
            num_batches_tracked=(),
        ).items()
    }


def ofa_shapes():
    """Keys of once-for-all's release for a network of two stages."""
    shapes = {'first_conv.conv.weight': (STEM, 3, 3, 3)}
    shapes.update(norm('first_conv.bn', STEM))
    block = 'blocks.0.mobile_inverted_conv'
    shapes[f'{block}.depth_conv.conv.weight'] = (STEM, 1, 3, 3)
    shapes.update(norm(f'{block}.depth_conv.bn', STEM))
    shapes[f'{block}.point_linear.conv.weight'] = (STEM, STEM, 1, 1)
    shapes.update(norm(f'{block}.point_linear.bn', STEM))
    channels, number = STEM, 1
    for width, squeezed in zip(WIDTHS, (False, True)):
        for _ in range(DEPTH):
            block = f'blocks.{number}.mobile_inverted_conv'
            middle = 6 * channels
            squeeze = max(8, (middle // 4 + 4) // 8 * 8)
            expand = f'{block}.inverted_bottleneck'
            shapes[f'{expand}.conv.conv.weight'] = (middle, channels, 1, 1)
            shapes.update(norm(f'{expand}.bn.bn', middle))
            depth = f'{block}.depth_conv'
            shapes[f'{depth}.conv.conv.weight'] = (middle, 1, 7, 7)
            shapes[f'{depth}.conv.5to3_matrix'] = (9, 9)
            shapes[f'{depth}.conv.7to5_matrix'] = (25, 25)
            shapes.update(norm(f'{depth}.bn.bn', middle))
            if squeezed:
                shapes[f'{depth}.se.fc.reduce.weight'] = (
                    squeeze,
                    middle,
                    1,
                    1,
                )
                shapes[f'{depth}.se.fc.reduce.bias'] = (squeeze,)
                shapes[f'{depth}.se.fc.expand.weight'] = (
                    middle,
                    squeeze,
                    1,
                    1,
                )
                shapes[f'{depth}.se.fc.expand.bias'] = (middle,)
            point = f'{block}.point_linear'
            shapes[f'{point}.conv.conv.weight'] = (width, middle, 1, 1)
            shapes.update(norm(f'{point}.bn.bn', width))
            channels, number = width, number + 1
    shapes['final_expand_layer.conv.weight'] = (40, channels, 1, 1)
    shapes.update(norm('final_expand_layer.bn', 40))
    shapes['feature_mix_layer.conv.weight'] = (48, 40, 1, 1)
    shapes['classifier.linear.linear.weight'] = (5, 48)
    shapes['classifier.linear.linear.bias'] = (5,)
    return shapes


def autoformer_shapes(embed=48, heads=4, dims=8, layers=4):
    """Keys of AutoFormer's release, of a larger embedding."""
    inner = heads * dims
    shapes = {
        'cls_token': (1, 1, embed),
        'pos_embed': (1, 17, embed),
        'patch_embed_super.proj.weight': (embed, 3, 4, 4),
        'patch_embed_super.proj.bias': (embed,),
        'norm.weight': (embed,),
        'norm.bias': (embed,),
        'head.weight': (5, embed),
        'head.bias': (5,),
    }
    for index in range(layers):
        block = f'blocks.{index}'
        for key in ('attn_layer_norm', 'ffn_layer_norm'):
            shapes[f'{block}.{key}.weight'] = (embed,)
            shapes[f'{block}.{key}.bias'] = (embed,)
        for side in 'kv':
            for axis in 'vh':
                name = f'rel_pos_embed_{side}.embeddings_table_{axis}'
                shapes[f'{block}.attn.{name}'] = (30, dims)
        linears = {
            'attn.qkv': (3 * inner, embed),
            'attn.proj': (embed, inner),
            'fc1': (4 * embed, embed),
            'fc2': (embed, 4 * embed),
        }
        for key, shape in linears.items():
            shapes[f'{block}.{key}.weight'] = shape
            shapes[f'{block}.{key}.bias'] = shape[:1]
    return shapes


def random_state(shapes):
    torch.manual_seed(0)
    return {
        key: torch.rand(shape) if shape else torch.tensor(7)
        for key, shape in shapes.items()
    }


def test_ofa(spaces):
    from dms_mmrazor.models.spaces.checkpoints import from_ofa

    model = spaces.plain('ofa')
    state = random_state(ofa_shapes())
    loaded = from_ofa({'state_dict': state}, model.state_dict(), DEPTH)
    model.load_state_dict(loaded)
    block = 'blocks.5.mobile_inverted_conv'  # of stage 1 the second
    mine = model.backbone.stages[1][1]
    expand = state[f'{block}.inverted_bottleneck.conv.conv.weight']
    assert torch.equal(mine.expand_conv.conv.weight, expand)
    reduce = state[f'{block}.depth_conv.se.fc.reduce.weight']
    assert torch.equal(mine.se.conv1.conv.weight, reduce)
    large = state[f'{block}.depth_conv.conv.conv.weight']
    to5 = state[f'{block}.depth_conv.conv.7to5_matrix']
    five = (large[:, :, 1:6, 1:6].reshape(-1, 25) @ to5.T).view(-1, 1, 5, 5)
    assert torch.allclose(mine.depthwise_conv.conv.weight, five)
    block = 'blocks.2.mobile_inverted_conv'
    large = state[f'{block}.depth_conv.conv.conv.weight']
    to5 = state[f'{block}.depth_conv.conv.7to5_matrix']
    to3 = state[f'{block}.depth_conv.conv.5to3_matrix']
    five = (large[:, :, 1:6, 1:6].reshape(-1, 25) @ to5.T).view(-1, 1, 5, 5)
    three = (five[:, :, 1:4, 1:4].reshape(-1, 9) @ to3.T).view(-1, 1, 3, 3)
    found = model.backbone.stages[0][1].depthwise_conv.conv.weight
    assert torch.allclose(found, three)
    first = model.head.layers[0].fc
    assert torch.equal(
        first.weight, state['feature_mix_layer.conv.weight'].flatten(1)
    )
    assert not first.bias.any()


def test_checkpoints_of_other_networks(spaces):
    from dms_mmrazor.models.spaces.checkpoints import (
        from_autoformer,
        from_ofa,
    )

    wanted = spaces.plain('ofa').state_dict()
    state = random_state(ofa_shapes())
    with pytest.raises(DMSError, match='backbone.stages.1'):
        from_ofa(state, wanted, depth=4)
    with pytest.raises(DMSError, match='no place'):
        from_ofa({**state, 'blocks.9.conv.x': torch.ones(1)}, wanted, DEPTH)
    wanted = spaces.plain('autoformer', num_heads=3).state_dict()
    with pytest.raises(DMSError, match='num_heads'):
        from_autoformer(random_state(autoformer_shapes()), wanted)


def test_autoformer_attention_is_that_of_the_release(spaces):
    from dms_mmrazor.models.spaces.checkpoints import from_autoformer

    model = spaces.plain('autoformer').eval()
    state = random_state(autoformer_shapes())
    loaded = from_autoformer({'model': state}, model.state_dict())
    model.load_state_dict(loaded)
    x = torch.rand(1, 17, 40)
    block = 'blocks.1.attn'
    weight = state[f'{block}.qkv.weight'][:, :40]
    rows = [weight[part::3] for part in range(3)]  # q, k, v alternate
    biases = state[f'{block}.qkv.bias'].chunk(3)
    query, key, value = (
        (x @ row.T + bias).view(17, 4, 8) for row, bias in zip(rows, biases)
    )
    table = {
        (side, axis): state[
            f'{block}.rel_pos_embed_{side}.embeddings_table_{axis}'
        ]
        for side in 'kv'
        for axis in 'vh'
    }

    def relative(side, i, j):
        rows = [0, 0]
        if i and j:
            places = [divmod(token - 1, 4) for token in (i, j)]
            rows = [b - a + 15 for a, b in zip(*places)]
        return table[side, 'v'][rows[0]] + table[side, 'h'][rows[1]]

    out = torch.zeros(17, 4, 8)
    for head in range(4):
        for i in range(17):
            keys = torch.stack(
                [key[j, head] + relative('k', i, j) for j in range(17)]
            )
            weights = (keys @ query[i, head] * 8**-0.5).softmax(0)
            values = torch.stack(
                [value[j, head] + relative('v', i, j) for j in range(17)]
            )
            out[i, head] = weights @ values
    proj = state[f'{block}.proj.weight'][:40]
    wanted = out.view(17, 32) @ proj.T + state[f'{block}.proj.bias'][:40]
    found = model.backbone.layers[1].attn(x)[0]
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
