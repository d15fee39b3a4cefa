"""Which channels of a decoder belong together.

With G groups of keys and values and R query heads in each (R = 1 without
grouping), a decoder layer has one unit of heads and one of the hidden
channels of its FFN; the DMS paper searches these two (Table 10).
"""

from typing import Any, Dict, List, Mapping, Optional, Tuple

from torch import nn

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.channel_groups import ChannelGroup, Side
from dms_mmrazor.graph.declared_groups import ModelAdapter
from dms_mmrazor.graph.model_kind import vocabulary_of
from dms_mmrazor.graph.residual_block import ResidualBlock
from dms_mmrazor.graph.stage_finder import ResidualStage
from dms_mmrazor.layers import channels_of
from dms_mmrazor.plugins.transformers.decoders import (
    FFNS,
    RMS_NORMS,
    decoders,
    grouped_heads,
    is_one_of,
)

Declaration = Dict[str, Any]

KEY = 'mutator.parse_cfg.decoder'

GROUPS, QUERIES = 'groups', 'queries'
_DEFAULTS = {'heads': GROUPS, 'embedding': False}


def make_adapter(
    model: nn.Module, settings: Mapping[str, Any]
) -> Optional['DecoderAdapter']:
    """The adapter of a model with a known decoder, or ``None``.

    Args:
        model (nn.Module): A plain model.
        settings (Mapping): See :class:`DecoderAdapter`.

    Raises:
        DMSError: If a setting is unknown.
    """
    found = list(decoders(model))
    return DecoderAdapter(model, found, **_check(settings)) if found else None


def _check(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """Settings with their defaults."""
    for key in settings:
        if key not in _DEFAULTS:
            raise DMSError(
                f'`{KEY}.{key}` is unknown; it takes {list(_DEFAULTS)}.'
            )
    chosen = {**_DEFAULTS, **settings}
    if chosen['heads'] not in (GROUPS, QUERIES, None):
        raise DMSError(
            f'`{KEY}.heads` must be {GROUPS!r} (whole groups of keys and '
            f'values with their queries), {QUERIES!r} (the same query heads '
            f'of each group) or None, got {chosen["heads"]!r}.'
        )
    if type(chosen['embedding']) is not bool:
        raise DMSError(
            f'`{KEY}.embedding` must be True or False, got '
            f'{chosen["embedding"]!r}.'
        )
    return chosen


class DecoderAdapter(ModelAdapter):
    """Groups and blocks of the decoders of Llama and its kin.

    Args:
        model (nn.Module): The plain model.
        found (list[tuple[str, nn.Module]]): Its decoders.
        heads (str, optional): 'groups': a unit of an attention are its
            groups of keys and values, each with all of its query heads
            (single heads where nothing is grouped); 'queries': the query
            heads within a group, the same in all groups. None: heads are
            not searched. Defaults to 'groups'.
        embedding (bool): Search the width of the residual stream, one unit
            for the whole decoder. Defaults to False.
    """

    def __init__(
        self,
        model: nn.Module,
        found: List[Tuple[str, nn.Module]],
        heads: Optional[str] = GROUPS,
        embedding: bool = False,
    ) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._decoders = found
        self._heads = heads
        self._embedding = embedding
        vocabulary = vocabulary_of(model)
        self._predictors = [
            name
            for module, name in self._names.items()
            if isinstance(module, nn.Linear)
            and module.out_features == vocabulary
            and not self._inside(name)
        ]

    def _inside(self, name: str) -> bool:
        return any(name.startswith(f'{root}.') for root, _ in self._decoders)

    def declarations(self) -> List[Declaration]:
        """Heads and FFN of every layer, and the residual stream."""
        found: List[Declaration] = []
        for root, decoder in self._decoders:
            for layer in decoder.layers:
                if self._heads:
                    found += self._of_attention(layer.self_attn)
                if is_one_of(layer.mlp, FFNS):
                    found.append(self._of_ffn(layer.mlp))
            if self._embedding:
                found.append(self._of_stream(root, decoder))
        return found

    def held(self) -> List[ChannelGroup]:
        """What is not searched, and why."""
        found = []
        for root, decoder in self._decoders:
            if not self._embedding:
                reason = (
                    'the width of the residual stream is searched by '
                    f'`{KEY}=dict(embedding=True)` alone'
                )
                stream = self._of_stream(root, decoder)
                found.append(_unsearched(stream, reason))
            if self._heads != GROUPS:
                reason = (
                    f'keys and values stay with `{KEY}=dict(heads='
                    f'{self._heads!r})`'
                )
                for layer in decoder.layers:
                    name = self._names[layer.self_attn]
                    sides = [f'{name}.k_proj', f'{name}.v_proj']
                    found.append(
                        _unsearched(dict(outputs=sides, inputs=[]), reason)
                    )
        for name in self._predictors:
            sides = dict(outputs=[name], inputs=[])
            found.append(_unsearched(sides, 'its channels are the tokens'))
        return found

    def stages(self) -> List[ResidualStage]:
        """All layers of a decoder are one stage, each of them removable."""
        return [
            ResidualStage(
                self._names[decoder.layers],
                tuple(
                    ResidualBlock(
                        self._names[layer],
                        self._names[layer.self_attn.o_proj],
                        True,
                        ((self._names[layer.mlp.down_proj], True),),
                    )
                    for layer in decoder.layers
                ),
                0,
            )
            for _, decoder in self._decoders
        ]

    def _of_attention(self, attention: nn.Module) -> List[Declaration]:
        """Its heads; nothing where there is but one."""
        name = self._names[attention]
        heads = grouped_heads(attention)
        query, key, value, out = (
            f'{name}.{part}_proj' for part in ('q', 'k', 'v', 'o')
        )
        if self._heads == GROUPS:
            sides = dict(outputs=[query, key, value], inputs=[out])
            return [dict(sides, heads=heads.groups, name=f'{name}.heads')]
        size = heads.queries * heads.dims
        ranges = [
            f'{start}:{start + size}'
            for start in range(0, heads.groups * size, size)
        ]
        sides = dict(
            outputs=[f'{query} {part}' for part in ranges],
            inputs=[f'{out} {part}' for part in ranges],
        )
        return [dict(sides, heads=heads.queries, name=f'{name}.queries')]

    def _of_ffn(self, ffn: nn.Module) -> Declaration:
        name = self._names[ffn]
        return dict(
            outputs=[f'{name}.gate_proj', f'{name}.up_proj'],
            inputs=[f'{name}.down_proj'],
        )

    def _of_stream(self, root: str, decoder: nn.Module) -> Declaration:
        """Everything that reads or adds to the residual stream."""
        prefix = f'{root}.' if root else ''
        width = decoder.embed_tokens.embedding_dim
        outputs = [f'{prefix}embed_tokens.weight']
        inputs: List[str] = []
        norms = [
            name
            for module, name in self._names.items()
            if is_one_of(module, RMS_NORMS)
            and name.startswith(prefix)
            and channels_of(module, True) == width
        ]
        for layer in decoder.layers:
            attention = self._names[layer.self_attn]
            ffn = self._names[layer.mlp]
            outputs += [f'{attention}.o_proj', f'{ffn}.down_proj']
            inputs += [f'{attention}.{part}_proj' for part in 'qkv']
            inputs += [f'{ffn}.gate_proj', f'{ffn}.up_proj']
        return dict(
            outputs=[*outputs, *norms],
            inputs=[*inputs, *norms, *self._predictors],
            name=f'{prefix}embed_tokens',
        )


def _unsearched(sides: Mapping[str, Any], reason: str) -> ChannelGroup:
    """A group that only says why its layers are not searched."""
    given, read = sides['outputs'], sides['inputs']
    every = [Side(name, 0, 0, True) for name in given]
    every += [Side(name, 0, 0, False) for name in read]
    name = sides.get('name') or every[0].name
    return ChannelGroup(name, 0, tuple(every), reason)
