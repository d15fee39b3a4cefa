"""Vocabularies of byte pairs in GGUF files."""

import json
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.loading import load_tokenizer

PRE_TOKENIZERS = {
    ('ByteLevel',): 'gpt-2',
    ('Digits', 'ByteLevel'): 'smollm',
}
"""llama.cpp's name for what splits a text before byte pairs are merged."""


class Vocabulary(NamedTuple):
    """A vocabulary of byte pairs, as :func:`read_vocabulary` gives it.

    Attributes:
        pre (str): llama.cpp's name for how it splits a text.
        tokens (list[str]): By id.
        special (set[str]): Those that are no text.
        merges (list[str]): 'first second'.
        ids (dict[str, int]): 'bos', 'eos', 'pad' → token.
        begins (bool): Whether each text begins with 'bos'.
        template (str, optional): For chats.
    """

    pre: str
    tokens: List[str]
    special: Any
    merges: List[str]
    ids: Dict[str, int]
    begins: bool
    template: Optional[str]


def read_vocabulary(
    folder: Optional[str], pre: Optional[str], size: int
) -> Optional[Vocabulary]:
    """The vocabulary of a tokenizer.

    Args:
        folder (str, optional): Of the tokenizer; None: there is none.
        pre (str, optional): llama.cpp's name for how it splits a text; None:
            that of :data:`PRE_TOKENIZERS`.
        size (int): Tokens of the model; those that the tokenizer does not
            have are called [PAD0], …

    Raises:
        DMSError: If it is not one of byte pairs, or splits unusually.
    """
    if folder is None:
        return None
    tokenizer = load_tokenizer(folder)
    path = os.path.join(folder, 'tokenizer.json')
    if not os.path.isfile(path):
        raise DMSError(f'GGUF: {folder!r} has no tokenizer.json.')
    with open(path, encoding='utf-8') as file:
        content = json.load(file)
    own = content['model']
    parts = _splitters(content)
    if own['type'] != 'BPE' or 'ByteLevel' not in parts:
        raise DMSError(
            f'GGUF: the tokenizer in {path!r} does not merge bytes, which '
            'alone is written: write the file without a tokenizer '
            '(`--gguf-no-tokenizer`).'
        )
    if pre is None and parts not in PRE_TOKENIZERS:
        raise DMSError(
            f'GGUF: {path!r} splits a text by {list(parts)}: give '
            "`pre_tokenizer` (`--gguf-pre`), llama.cpp's name for that, such "
            'as llama-bpe or qwen2.'
        )
    known = tokenizer.get_vocab()
    if max(known.values()) >= size:
        raise DMSError(
            f'GGUF: the tokenizer in {path!r} has {max(known.values()) + 1} '
            f'tokens, the model {size}: give the one of the model.'
        )
    tokens = [f'[PAD{index}]' for index in range(size)]
    for token, index in known.items():
        tokens[index] = token
    special = set(tokenizer.all_special_tokens) | set(tokens).difference(known)
    merges = [m if isinstance(m, str) else ' '.join(m) for m in own['merges']]
    ids = {
        name: getattr(tokenizer, f'{name}_token_id')
        for name in ('bos', 'eos', 'pad')
        if getattr(tokenizer, f'{name}_token_id') is not None
    }
    return Vocabulary(
        pre or PRE_TOKENIZERS[parts],
        tokens,
        special,
        merges,
        ids,
        tokenizer('a')['input_ids'][:1] == [ids.get('bos')],
        getattr(tokenizer, 'chat_template', None),
    )


def _splitters(content: Mapping[str, Any]) -> Tuple[str, ...]:
    """What splits a text before it is merged, one after another."""
    first = content.get('pre_tokenizer') or {}
    parts = first.get('pretokenizers') or [first]
    return tuple(part.get('type', '') for part in parts)


def write_vocabulary(
    gguf: Any, writer: Any, words: Optional[Vocabulary]
) -> None:
    """Write a vocabulary, or that there is none.

    Args:
        gguf (module): The package.
        writer (GGUFWriter): Of the file.
        words (Vocabulary, optional): What to write.
    """
    if words is None:
        writer.add_tokenizer_model('no_vocab')
        return
    kinds = gguf.TokenType
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(
        [
            kinds.CONTROL if token in words.special else kinds.NORMAL
            for token in words.tokens
        ]
    )
    writer.add_token_merges(words.merges)
    for name, index in words.ids.items():
        getattr(writer, f'add_{name}_token_id')(index)
    writer.add_add_bos_token(words.begins)
    if words.template:
        writer.add_chat_template(words.template)
