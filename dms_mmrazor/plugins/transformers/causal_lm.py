"""A causal language model that mmengine's runner trains."""

import math
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from dms_mmrazor.errors import DMSError
from dms_mmrazor.graph.model_kind import vocabulary_of
from dms_mmrazor.plugins.transformers.loading import (
    as_dtype,
    import_transformers,
    load_model,
)
from dms_mmrazor.registry import METRICS, MODELS

IGNORED = -100
"""Label of a token that is not to be predicted."""


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each next token.

    Args:
        logits (Tensor): [B, L, V].
        labels (Tensor): [B, L]: the tokens themselves; -100 for those that
            are not to be predicted.

    Returns:
        Tensor: [B, L - 1] in single precision; 0 where nothing counts.
    """
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction='none',
    ).view(labels.shape[0], -1)


@MODELS.register_module()
class CausalLM(BaseModel):
    """A language model of transformers, from a local folder or a config.

    Attributes:
        lm (nn.Module): The model; its keys begin with ``lm.``.

    Args:
        folder (str, optional): Local folder with ``config.json`` and
            weights. Nothing is downloaded. Defaults to None.
        config (dict, optional): Instead of a folder: ``model_type`` ('llama',
            …) and arguments of the config's class, for random weights.
            Defaults to None.
        dtype (str, optional): 'float32', 'bfloat16' or 'float16'. Defaults
            to None, as the folder says.
        attention (str, optional): 'sdpa', 'eager', … Defaults to None.
        with_cp (bool): Recompute each layer in the backward pass, which
            saves memory. Defaults to False.
        data_preprocessor (dict | nn.Module, optional): Defaults to None,
            which moves tokens to the device.
        init_cfg (dict, optional): As in mmengine. Defaults to None.

    Raises:
        DMSError: If it is given both or neither of folder and config, or
            transformers is missing.
    """

    def __init__(
        self,
        folder: Optional[str] = None,
        config: Optional[Dict[str, Any]] = None,
        dtype: Optional[str] = None,
        attention: Optional[str] = None,
        with_cp: bool = False,
        data_preprocessor: Union[Dict[str, Any], nn.Module, None] = None,
        init_cfg: Optional[Dict[str, Any]] = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if (folder is None) == (config is None):
            raise DMSError(
                'CausalLM: give either `folder`, a local folder of a model, '
                'or `config=dict(model_type=…)` for random weights.'
            )
        if folder is not None:
            self.lm = load_model(folder, dtype, attention)
        else:
            self.lm = _from_config(config, dtype, attention)
        if with_cp:
            self.lm.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs=dict(use_reentrant=False)
            )

    @property
    def token_vocabulary(self) -> int:
        """Number of tokens that it knows."""
        return vocabulary_of(self.lm)

    def positions_that_count(
        self, inputs: Tensor, data_samples: Optional[Tensor] = None
    ) -> Tensor:
        """Positions of the logits whose next token is to be predicted.

        Args:
            inputs (Tensor): Token ids [B, L].
            data_samples (Tensor, optional): Labels [B, L], as in
                :meth:`forward`. Defaults to None, all tokens.

        Returns:
            Tensor: bool [B, L]; nothing is known of what follows the last.
        """
        labels = inputs if data_samples is None else data_samples
        return F.pad(labels[:, 1:] != IGNORED, (0, 1))

    def init_weights(self) -> None:
        """As loaded, or as transformers has initialized it."""
        if self.init_cfg:
            super().init_weights()

    def forward(
        self,
        inputs: Tensor,
        data_samples: Optional[Tensor] = None,
        mode: str = 'tensor',
    ) -> Union[Tensor, Dict[str, Tensor], List[Dict[str, float]]]:
        """Logits, the loss, or what :class:`Perplexity` reads.

        Args:
            inputs (Tensor): Token ids [B, L].
            data_samples (Tensor, optional): Labels [B, L], -100 for tokens
                that are not to be predicted. Defaults to None, all tokens.
            mode (str): 'tensor': logits [B, L, V]; 'loss': the mean over
                tokens; 'predict': of each window the sum of the negative
                log-likelihoods and the number of tokens. Defaults to
                'tensor'.

        Raises:
            DMSError: If the mode is unknown.
        """
        logits = self.lm(input_ids=inputs, use_cache=False).logits
        if mode == 'tensor':
            return logits
        labels = inputs if data_samples is None else data_samples
        each = token_losses(logits, labels)
        counts = labels[:, 1:] != IGNORED
        if mode == 'loss':
            return dict(loss=each.sum() / counts.sum().clamp(min=1))
        if mode == 'predict':
            sums = each.double().sum(1).tolist()
            numbers = counts.sum(1).tolist()
            return [dict(nll=a, tokens=b) for a, b in zip(sums, numbers)]
        raise DMSError(
            f"CausalLM: mode must be 'tensor', 'loss' or 'predict', got "
            f'{mode!r}.'
        )


def _from_config(
    config: Dict[str, Any], dtype: Optional[str], attention: Optional[str]
) -> nn.Module:
    """A model with random weights."""
    transformers = import_transformers()
    settings = dict(config)
    kind = settings.pop('model_type', None)
    if kind is None:
        raise DMSError(
            'CausalLM: `config` needs `model_type`, such as '
            "dict(model_type='llama', hidden_size=256, …)."
        )
    try:
        made = transformers.AutoConfig.for_model(kind, **settings)
    except ValueError as error:
        raise DMSError(f'CausalLM: {str(error).splitlines()[0]}') from None
    wanted = as_dtype(dtype)
    return transformers.AutoModelForCausalLM.from_config(
        made,
        dtype=torch.float32 if wanted == 'auto' else wanted,
        **({} if attention is None else {'attn_implementation': attention}),
    )


@torch.no_grad()
def perplexity(model: nn.Module, windows: Any, batch_size: int = 16) -> float:
    """Perplexity of a language model, in evaluation mode.

    Args:
        model (nn.Module): Of transformers, or a supernet of it.
        windows (Sequence): As :class:`TokenWindows`, items with ``inputs``
            and ``data_samples``.
        batch_size (int): Windows at once. Defaults to 16.
    """
    mode, device = model.training, next(model.parameters()).device
    model.eval()
    total, number = 0.0, 0
    for start in range(0, len(windows), batch_size):
        end = min(start + batch_size, len(windows))
        items = [windows[index] for index in range(start, end)]
        inputs, labels = (
            torch.stack([item[key] for item in items]).to(device)
            for key in ('inputs', 'data_samples')
        )
        logits = model(input_ids=inputs, use_cache=False).logits
        total += float(token_losses(logits, labels).double().sum())
        number += int((labels[:, 1:] != IGNORED).sum())
    model.train(mode)
    return float(torch.tensor(total / max(number, 1)).exp())


@METRICS.register_module()
class Perplexity(BaseMetric):
    """exp of the mean negative log-likelihood of a token.

    The first token of a window is not predicted. Windows and stride are the
    dataset's: published numbers of LLM-Pruner are of windows of 128 tokens
    that do not overlap.
    """

    default_prefix = None

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Note the sums of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): ``nll`` and ``tokens`` of each
                window, from :class:`CausalLM`.
        """
        for sample in data_samples:
            self.results.append((sample['nll'], sample['tokens']))

    def compute_metrics(
        self, results: Sequence[Tuple[float, int]]
    ) -> Dict[str, float]:
        """``perplexity``, and the number of ``tokens`` that it is of."""
        tokens = sum(number for _, number in results)
        mean = sum(nll for nll, _ in results) / max(tokens, 1)
        return {
            'perplexity': math.exp(min(mean, 700.0)),
            'tokens': float(tokens),
        }
