"""Models whose channels an adapter of their library knows.

What a tracer does not get through (keyword arguments, rotary embeddings,
caches) an adapter knows from the names of the layers. It declares groups
that `mutator.groups` could declare, too; that masked and exported models
agree is proven as for any other model.
"""

from typing import Any, Dict, List, Mapping, Optional

from torch import nn

from dms_mmrazor.graph.channel_groups import ChannelGroup
from dms_mmrazor.graph.stage_finder import ResidualStage
from dms_mmrazor.layers.by_type import load_plugin


class ModelAdapter:
    """What a library's adapter tells of one model."""

    def declarations(self) -> List[Dict[str, Any]]:
        """Groups of channels, as ``mutator.groups``."""
        raise NotImplementedError

    def held(self) -> List[ChannelGroup]:
        """Groups that are not searched, with their reasons."""
        return []

    def stages(self) -> List[ResidualStage]:
        """Stages of removable blocks."""
        return []


def find_adapter(
    model: nn.Module, settings: Optional[Mapping[str, Any]] = None
) -> Optional[ModelAdapter]:
    """The adapter of a model, if its library has one that knows it.

    Args:
        model (nn.Module): A plain model.
        settings (Mapping, optional): What the user wants of the adapter:
            `mutator.parse_cfg.decoder`. Defaults to None.

    Raises:
        DMSError: If the settings are unknown.
    """
    for module in model.modules():
        for kind in type(module).__mro__:
            plugin = load_plugin(kind.__module__.partition('.')[0])
            make = getattr(plugin, 'make_adapter', None)
            if make is not None:
                return make(model, settings or {})
    return None
