"""How well a language model predicts held-out text."""

import math
from typing import Any, Dict, Sequence, Tuple

from mmengine.evaluator import BaseMetric

from dms_mmrazor.registry import METRICS


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
