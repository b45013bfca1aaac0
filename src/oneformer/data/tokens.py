"""A text -> the token ids of CLIP's byte-pair encoding, as task tokens (floats) or text tokens (integers).

Vocabulary: the first 48,894 merges of CLIP's `bpe_simple_vocab_16e6` (MIT), one merge a line. Ids: 256 bytes, the same
256 at a word's end, one per merge, then start (49406) and end (49407). The ids equal oneformer-model.md 1.2 and 1.3.

CLIP also repairs broken text (ftfy: mojibake, curly quotes, full-width letters); here only Unicode NFC is applied, so a
class name that holds such characters gets other ids than CLIP's. Plain names, accented ones included, get the same.
"""

from __future__ import annotations

import gzip
import html
import itertools
import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import regex
import torch

if TYPE_CHECKING:
    from oneformer.spec.model import TextEncoderSpec

CONTEXT_LENGTH = 77  # CLIP's, oneformer-model.md 1.2
END = 49407
NUM_MERGES = 48_894
WORD_END = "</w>"
# The pieces that are encoded one by one: English endings, runs of letters, single digits, runs of anything else.
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def task_sentence(task: str) -> str:
    """The sentence that tells the network what to do (oneformer-model.md 1.2)."""
    return f"The task is {task}"


class Tokenizer:
    """CLIP's byte-pair encoding with zero padding; with `task_padding` "tao" task sentences end in end tokens instead.

    Every text is encoded once and kept. What is kept travels to the loader's workers; the vocabulary does not, so a
    worker only loads it when it meets a new text. A process loads it once, however many tokenizers it has.
    """

    def __init__(self, context_length: int = CONTEXT_LENGTH, *, task_padding: str = "clip") -> None:
        assert context_length >= 3, "a text needs room for start, one token and end"
        self.context_length = context_length
        self.task_padding = task_padding
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of `text` between start and end, padded with 0 to `context_length`; a longer one is cut."""
        if text not in self._known:
            known = vocabulary()
            ids = [known.start, *known.encode(clean(text)), known.end]
            if len(ids) > self.context_length:
                ids = [*ids[: self.context_length - 1], known.end]
            self._known[text] = ids + [0] * (self.context_length - len(ids))
        return list(self._known[text])

    def encode_all(self, texts: Iterable[str]) -> torch.Tensor:
        """Ids of several texts, int64 (T, context_length) for T texts."""
        rows = [self.encode(text) for text in texts]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), self.context_length)

    def task_tokens(self, task: str) -> torch.Tensor:
        """The ids of the task's sentence as float32 (context_length,): the task MLP takes the numbers themselves."""
        ids = self.encode(task_sentence(task))
        if self.task_padding == "tao":
            ids = [token or END for token in ids]
        return torch.tensor(ids, dtype=torch.float32)


def task_tokenizer(text: TextEncoderSpec) -> Tokenizer:
    """What gives the task tokens that a network was trained with."""
    return Tokenizer(text.context_length, task_padding=text.task_padding)


def clean(text: str) -> str:
    """HTML entities resolved (twice, as CLIP does), NFC, single spaces, lower case."""
    plain = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    return " ".join(plain.split()).lower()


class _Vocabulary:
    """The merges and the id of every symbol."""

    def __init__(self) -> None:
        packed = resources.files("oneformer").joinpath("assets/bpe_vocab.txt.gz").read_bytes()
        lines = gzip.decompress(packed).decode("utf-8").splitlines()
        merges = [tuple(line.split(" ")) for line in lines]
        assert len(merges) == NUM_MERGES, f"the vocabulary file has {len(merges)} merges"
        self.rank = {merge: place for place, merge in enumerate(merges)}
        self.byte_symbol = _byte_symbols()
        single = list(self.byte_symbol.values())
        symbols = [*single, *(s + WORD_END for s in single), *("".join(merge) for merge in merges)]
        self.id_of = {symbol: place for place, symbol in enumerate(symbols)}
        # Counted, not taken from the table: two merges may give the same symbol.
        self.start, self.end = len(symbols), len(symbols) + 1
        self.pieces = regex.compile(PIECES)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in self.pieces.findall(text):
            symbols = [self.byte_symbol[byte] for byte in piece.encode("utf-8")]
            symbols[-1] += WORD_END
            ids += [self.id_of[symbol] for symbol in self._merge(symbols)]
        return ids

    def _merge(self, symbols: list[str]) -> list[str]:
        """Join neighbours, the pair that was learnt first before the others, until no known pair is left."""
        while len(symbols) > 1:
            pairs = list(itertools.pairwise(symbols))
            best = min(pairs, key=lambda pair: self.rank.get(pair, NUM_MERGES))
            if best not in self.rank:
                break
            joined, place = [], 0
            while place < len(symbols):
                is_pair = tuple(symbols[place : place + 2]) == best
                joined.append("".join(best) if is_pair else symbols[place])
                place += 2 if is_pair else 1
            symbols = joined
        return symbols


@cache
def vocabulary() -> _Vocabulary:
    """The vocabulary, read from the package the first time."""
    return _Vocabulary()


def _byte_symbols() -> dict[int, str]:
    """A printable character for each of the 256 bytes, in the order that gives CLIP's ids: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + place) for place, b in enumerate(rest)}}
