"""A tokenizer of byte pairs, learned from local text."""

import os
from typing import Any, Sequence

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.loading import (
    import_transformers,
    load_tokenizer,
)

END = '<end>'
"""Token 0: behind each document, and in place of what is missing."""


def train_tokenizer(
    files: Sequence[str], folder: str, vocabulary: int = 4096
) -> Any:
    """Learn byte pairs from text, unless the folder has a tokenizer.

    Args:
        files (Sequence[str]): Text files.
        folder (str): Where to write it; it is made if missing.
        vocabulary (int): Number of tokens. Defaults to 4096.

    Returns:
        PreTrainedTokenizerFast: As it is loaded from there.

    Raises:
        DMSError: If there is no text, or fewer tokens than bytes.
    """
    transformers = import_transformers()
    if not os.path.isfile(os.path.join(folder, 'tokenizer.json')):
        if not files or vocabulary < 257:
            raise DMSError(
                'a tokenizer needs text files and at least 257 tokens (all '
                f'bytes and an end), got {list(files)} and {vocabulary}.'
            )
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=_byte_pairs(files, vocabulary),
            eos_token=END,
            pad_token=END,
        ).save_pretrained(folder)
    return load_tokenizer(folder)


def _byte_pairs(files: Sequence[str], vocabulary: int) -> Any:
    """A tokenizer of the package tokenizers, which transformers needs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train(list(files), trainer)
    return tokenizer
