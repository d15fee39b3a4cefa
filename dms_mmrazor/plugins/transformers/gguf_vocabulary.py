"""Vocabularies of byte pairs in GGUF files.

Two kinds of tokenizers are known: those that merge bytes (GPT-2 and its kin,
with a name for how a text is split before), and those that merge characters
and fall back to bytes (SentencePiece's, Llama's), whose merges llama.cpp
reads as scores of their results.
"""

import json
import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.loading import load_tokenizer

BYTES, CHARACTERS = 'gpt2', 'llama'
"""llama.cpp's names of both kinds."""

PRE_TOKENIZERS = {
    ('ByteLevel',): 'gpt-2',
    ('Digits', 'ByteLevel'): 'smollm',
}
"""llama.cpp's name for what splits a text before bytes are merged."""

_SPACE = '▁'
"""What stands for a space where characters are merged."""


class Vocabulary(NamedTuple):
    """A vocabulary, as :func:`read_vocabulary` gives it.

    Attributes:
        kind (str): :data:`BYTES` or :data:`CHARACTERS`.
        pre (str): llama.cpp's name for how a text is split.
        tokens (list[str]): By id.
        types (list[str]): Of each token: 'NORMAL', 'CONTROL', 'BYTE' or
            'UNKNOWN'.
        merges (list[str]): 'first second', the first one first.
        ids (dict[str, int]): 'bos', 'eos', 'unk', 'pad' → token.
        begins (bool): Whether each text begins with 'bos'.
        spaced (bool): Whether a text gets a space before it.
        template (str, optional): For chats.
    """

    kind: str
    pre: str
    tokens: List[str]
    types: List[str]
    merges: List[str]
    ids: Dict[str, int]
    begins: bool
    spaced: bool
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
        DMSError: If it has no byte pairs, splits unusually or has more
            tokens than the model.
    """
    if folder is None:
        return None
    tokenizer = load_tokenizer(folder)
    path = os.path.join(folder, 'tokenizer.json')
    if not os.path.isfile(path):
        raise DMSError(f'GGUF: {folder!r} has no tokenizer.json.')
    with open(path, encoding='utf-8') as file:
        content = json.load(file)
    kind, pre = _kind(content, path, pre)
    tokens, types = _tokens(tokenizer, path, size)
    ids = {
        name: getattr(tokenizer, f'{name}_token_id')
        for name in ('bos', 'eos', 'unk', 'pad')
        if getattr(tokenizer, f'{name}_token_id') is not None
    }
    merges = content['model']['merges']
    return Vocabulary(
        kind,
        pre,
        tokens,
        types,
        [m if isinstance(m, str) else ' '.join(m) for m in merges],
        ids,
        tokenizer('a')['input_ids'][:1] == [ids.get('bos')],
        tokenizer.tokenize('a')[:1] == [f'{_SPACE}a'],
        getattr(tokenizer, 'chat_template', None),
    )


def _kind(
    content: Mapping[str, Any], path: str, pre: Optional[str]
) -> Tuple[str, str]:
    """Which kind it is, and llama.cpp's name for how it splits a text."""
    model, parts = content['model'], _splitters(content)
    if model['type'] == 'BPE' and 'ByteLevel' in parts:
        if pre is None and parts not in PRE_TOKENIZERS:
            raise DMSError(
                f'GGUF: {path!r} splits a text by {list(parts)}: give '
                "`pre_tokenizer` (`--gguf-pre`), llama.cpp's name for that, "
                'such as llama-bpe or qwen2.'
            )
        return BYTES, pre or PRE_TOKENIZERS[parts]
    plain = parts in ((), ('Metaspace',))
    if model['type'] == 'BPE' and model.get('byte_fallback') and plain:
        return CHARACTERS, pre or 'default'
    raise DMSError(
        f'GGUF: the tokenizer in {path!r} merges neither bytes nor characters '
        'as Llama does: write the file without a tokenizer '
        '(`--gguf-no-tokenizer`).'
    )


def _splitters(content: Mapping[str, Any]) -> Tuple[str, ...]:
    """What splits a text before it is merged, one after another."""
    first = content.get('pre_tokenizer')
    if first is None:
        return ()
    return tuple(part['type'] for part in first.get('pretokenizers', [first]))


def _tokens(
    tokenizer: Any, path: str, size: int
) -> Tuple[List[str], List[str]]:
    """Tokens by id, as many as the model has, and their types."""
    known = tokenizer.get_vocab()
    number = max(known.values()) + 1
    if number > size:
        raise DMSError(
            f'GGUF: the tokenizer in {path!r} has {number} tokens, the model '
            f'{size}: give the one of the model.'
        )
    tokens = [f'[PAD{index}]' for index in range(size)]
    types = ['CONTROL'] * size
    special = set(tokenizer.all_special_tokens)
    for token, index in known.items():
        tokens[index] = token
        if token == tokenizer.unk_token:
            types[index] = 'UNKNOWN'
        elif re.fullmatch('<0x[0-9A-F]{2}>', token):
            types[index] = 'BYTE'
        elif token not in special:
            types[index] = 'NORMAL'
    return tokens, types


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
    writer.add_tokenizer_model(words.kind)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types([gguf.TokenType[name] for name in words.types])
    if words.kind == BYTES:
        writer.add_token_merges(words.merges)
    else:
        writer.add_token_scores(_scores(words))
        writer.add_add_space_prefix(words.spaced)
    for name, index in words.ids.items():
        getattr(writer, f'add_{name}_token_id')(index)
    writer.add_add_bos_token(words.begins)
    if words.template:
        writer.add_chat_template(words.template)


def _scores(words: Vocabulary) -> List[float]:
    """Of each token how early it is merged: the first merge is the best."""
    ranks: Dict[str, int] = {}
    for rank, merge in enumerate(words.merges):
        ranks.setdefault(merge.replace(' ', ''), rank)
    return [-float(ranks.get(token, len(ranks))) for token in words.tokens]
