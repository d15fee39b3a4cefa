"""Windows of tokens from local text, JSON lines or arrays.

Documents are split into those that train and those that are held out, then
put behind one another, each with an end token, and cut into windows. An
item depends on its index alone, so that a resumed training goes on with the
data that an undisturbed one would see.
"""

import glob
import json
import os
import random
from typing import Any, Dict, Iterator, List, NamedTuple, Optional
from typing import Sequence as Seq

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dms_mmrazor.errors import DMSError
from dms_mmrazor.plugins.transformers.causal_lm import IGNORED
from dms_mmrazor.plugins.transformers.loading import load_tokenizer
from dms_mmrazor.registry import DATASETS

TEMPLATE = '### Instruction:\n{instruction}\n\n{context}### Response:\n'
"""What stands before an answer; ``context`` is the row's input, if any."""

CONTEXT = '### Input:\n{input}\n\n'

SEPARATOR = '\n\n\n'
"""Between the documents of a text."""


class Document(NamedTuple):
    """Tokens of a document.

    Attributes:
        tokens (ndarray): Ids, int64 [n].
        prompt (int): So many of them are not to be predicted.
    """

    tokens: np.ndarray
    prompt: int = 0


@DATASETS.register_module()
class TokenWindows(Dataset):
    """Packed windows of tokens.

    Attributes:
        documents (int): Number of documents in it.

    Args:
        files (str | Sequence[str]): Files or patterns: ``.txt``, documents
            apart by three line breaks; ``.jsonl`` or ``.json``, rows with
            ``text``, or with ``instruction``, ``input`` and ``output``,
            whose answers alone count for the loss; ``.npy``, one array of
            ids, documents ending with ``end_token``.
        window (int): Tokens of a window.
        tokenizer (str | optional): Folder of a tokenizer of transformers,
            or one itself; arrays need none. Defaults to None.
        stride (int, optional): Of each window the last ``stride`` tokens
            are predicted, which the next window begins behind. Defaults to
            None: windows do not overlap.
        part (str): 'all', 'train' or 'held_out'. Defaults to 'all'.
        held_out (float): Portion of the documents that is held out.
            Defaults to 0.1.
        seed (int): By which these are chosen. Defaults to 0.
        end_token (int, optional): Id behind each document. Defaults to
            None, the tokenizer's.
        limit (int, optional): Use so many windows at most. Defaults to
            None.

    Raises:
        DMSError: If a file is missing or unreadable, or nothing is left.
    """

    def __init__(
        self,
        files: Any,
        window: int,
        tokenizer: Any = None,
        stride: Optional[int] = None,
        part: str = 'all',
        held_out: float = 0.1,
        seed: int = 0,
        end_token: Optional[int] = None,
        limit: Optional[int] = None,
    ) -> None:
        stride = window if stride is None else stride
        if not (window > 1 and 0 < stride <= window):
            raise DMSError(
                'TokenWindows: `window` must be at least 2 and `stride` in 1 '
                f'… window, got {window} and {stride}.'
            )
        self.window, self.stride = window, stride
        if isinstance(tokenizer, str):
            tokenizer = load_tokenizer(tokenizer, 'TokenWindows.tokenizer')
        if end_token is None and tokenizer is not None:
            end_token = tokenizer.eos_token_id
        reader = _Reader(tokenizer, end_token)
        paths = _paths([files] if isinstance(files, str) else files)
        found = [doc for path in paths for doc in reader.read(path)]
        chosen = _choose(found, part, held_out, seed)
        self.documents = len(chosen)
        self._tokens, self._labels = _pack(chosen, end_token)
        fitting = (len(self._tokens) - window) // stride + 1
        self._length = fitting if limit is None else min(fitting, limit)
        if self._length < 1:
            raise DMSError(
                f'TokenWindows: {len(self._tokens)} tokens of '
                f'{self.documents} documents ({part!r} of {paths}) are less '
                f'than one window of {window}.'
            )

    def __len__(self) -> int:
        """Number of whole windows; what is left at the end is not used."""
        return self._length

    def __getitem__(self, index: int) -> Dict[str, Tensor]:
        """Window ``index``: ``inputs`` and ``data_samples`` [window]."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        start = index * self.stride
        part = slice(start, start + self.window)
        labels = np.array(self._labels[part])
        if index and self.stride < self.window:
            labels[: self.window - self.stride] = IGNORED
        return dict(
            inputs=torch.from_numpy(np.array(self._tokens[part])),
            data_samples=torch.from_numpy(labels),
        )


class _Reader:
    """Reads documents.

    Args:
        tokenizer (optional): Of transformers.
        end_token (int, optional): Behind each document.
    """

    def __init__(self, tokenizer: Any, end_token: Optional[int]) -> None:
        self._tokenizer = tokenizer
        self._end = end_token

    def read(self, path: str) -> Iterator[Document]:
        """Documents of one file.

        Raises:
            DMSError: If it cannot be read, or is of an unknown type.
        """
        kind = os.path.splitext(path)[1]
        try:
            if kind == '.npy':
                yield from self._array(np.load(path, mmap_mode='r'), path)
            elif kind in ('.jsonl', '.json'):
                for number, row in enumerate(_rows(path), 1):
                    yield self._row(row, f'{path}, row {number}')
            elif kind == '.txt':
                with open(path, encoding='utf-8') as file:
                    for text in file.read().split(SEPARATOR):
                        if text.strip():
                            yield Document(self._ids(text.strip(), path))
            else:
                raise DMSError(
                    f'TokenWindows: {path} is neither .txt, .jsonl, .json '
                    'nor .npy.'
                )
        except (OSError, ValueError) as error:
            raise DMSError(
                f'TokenWindows: {path} cannot be read: {error}'
            ) from None

    def _array(self, array: np.ndarray, path: str) -> Iterator[Document]:
        if array.ndim != 1 or array.dtype.kind not in 'iu':
            raise DMSError(
                f'TokenWindows: {path} must hold one row of token ids, has '
                f'{array.dtype} {list(array.shape)}.'
            )
        if self._end is None:
            yield Document(array)
            return
        ends = np.flatnonzero(array == self._end)
        for part in np.split(array, ends + 1):
            part = part[:-1] if len(part) and part[-1] == self._end else part
            if len(part):
                yield Document(part)

    def _row(self, row: Any, where: str) -> Document:
        if isinstance(row, dict) and isinstance(row.get('text'), str):
            return Document(self._ids(row['text'], where))
        if not isinstance(row, dict) or not {'instruction', 'output'} <= set(
            row
        ):
            raise DMSError(
                f'TokenWindows: {where} needs `text`, or `instruction` and '
                '`output`.'
            )
        context = CONTEXT.format(**row) if row.get('input') else ''
        prompt = TEMPLATE.format(
            instruction=row['instruction'], context=context
        )
        before = self._ids(prompt, where)
        answer = self._ids(row['output'], where)
        return Document(np.concatenate([before, answer]), len(before))

    def _ids(self, text: str, where: str) -> np.ndarray:
        if self._tokenizer is None:
            raise DMSError(
                f'TokenWindows: {where} is text: give `tokenizer`, a local '
                'folder.'
            )
        found = self._tokenizer(text, add_special_tokens=False)
        return np.asarray(found['input_ids'], dtype=np.int64)


def _rows(path: str) -> Iterator[Any]:
    """Rows of JSON lines, or of one list."""
    with open(path, encoding='utf-8') as file:
        if path.endswith('.json'):
            yield from json.load(file)
            return
        for line in file:
            if line.strip():
                yield json.loads(line)


def _paths(files: Seq[str]) -> List[str]:
    """Files that names and patterns stand for, in order."""
    found: List[str] = []
    for pattern in files:
        matches = sorted(glob.glob(pattern)) or [pattern]
        for path in matches:
            if not os.path.isfile(path):
                raise DMSError(f'TokenWindows: there is no file {path!r}.')
        found += matches
    return found


def _choose(
    documents: Seq[Document], part: str, held_out: float, seed: int
) -> List[Document]:
    """Documents that train, or those that are held out."""
    if part == 'all':
        return list(documents)
    if part not in ('train', 'held_out') or not 0 < held_out < 1:
        raise DMSError(
            "TokenWindows: `part` must be 'all', 'train' or 'held_out' and "
            f'`held_out` in (0, 1), got {part!r} and {held_out}.'
        )
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    apart = set(order[: max(1, round(held_out * len(order)))])
    return [
        document
        for index, document in enumerate(documents)
        if (index in apart) == (part == 'held_out')
    ]


def _pack(documents: Seq[Document], end: Optional[int]) -> Any:
    """All tokens behind one another, and their labels."""
    last = [] if end is None else [end]
    tokens, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for ids, prompt in documents:
        ids = np.concatenate([ids, last]).astype(np.int64)
        label = ids.copy()
        label[:prompt] = IGNORED
        tokens.append(ids)
        labels.append(label)
    return np.concatenate(tokens), np.concatenate(labels)
