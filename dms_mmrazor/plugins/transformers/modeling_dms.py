"""Language models whose layers differ in size, for a model's own folder.

`export_hf.py` writes this file beside the weights. It needs transformers
alone: `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`
runs it. The sizes are in `per_layer_config` of `config.json`, number of a
layer → what is not as in the rest of the config; layers without a skipped
part have at least one head and one hidden channel.
"""

import copy

from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)


class _PerLayerSizes:
    """Builds the layers anew that differ from the others."""

    # By this `save_pretrained` writes this file again.
    _auto_class = 'AutoModelForCausalLM'

    def __init__(self, config):
        super().__init__(config)
        layers = self.model.layers
        for number, sizes in getattr(config, 'per_layer_config', {}).items():
            index = int(number)
            own = copy.deepcopy(config)
            for key, size in sizes.items():
                setattr(own, key, size)
            layers[index] = type(layers[index])(own, index)
            # What is asked later is asked of the model's config: a kernel of
            # the attention may be chosen when the model is there.
            for module in layers[index].modules():
                if getattr(module, 'config', None) is own:
                    module.config = config
        self.post_init()


class DMSLlamaForCausalLM(_PerLayerSizes, LlamaForCausalLM):
    """Llama with sizes of its own in each layer."""


class DMSMistralForCausalLM(_PerLayerSizes, MistralForCausalLM):
    """Mistral with sizes of its own in each layer."""


class DMSQwen2ForCausalLM(_PerLayerSizes, Qwen2ForCausalLM):
    """Qwen2 with sizes of its own in each layer."""


class DMSQwen3ForCausalLM(_PerLayerSizes, Qwen3ForCausalLM):
    """Qwen3 with sizes of its own in each layer."""
