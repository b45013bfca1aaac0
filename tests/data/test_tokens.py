"""CLIP tokens: the known ids, and equality with the tokenizer of transformers on many texts."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from importlib import resources
from pathlib import Path

import pytest
import torch

from oneformer.data.tokens import NUM_MERGES, Tokenizer, clean, vocabulary

# oneformer-model.md 1.2 and 1.3
ANCHORS = {
    "The task is panoptic": [49406, 518, 10549, 533, 1072, 24755, 49407],
    "The task is semantic": [49406, 518, 10549, 533, 29119, 1550, 49407],
    "The task is instance": [49406, 518, 10549, 533, 34572, 49407],
    "a photo with a wall": [49406, 320, 1125, 593, 320, 2569, 49407],
    "a semantic photo": [49406, 320, 29119, 1550, 1125, 49407],
    "an instance photo": [49406, 550, 34572, 1125, 49407],
    "a panoptic photo": [49406, 320, 1072, 24755, 1125, 49407],
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.mark.parametrize("text", ANCHORS)
def test_known_texts_have_clips_ids(tokenizer: Tokenizer, text: str) -> None:
    ids = ANCHORS[text]
    assert tokenizer.encode(text) == ids + [0] * (77 - len(ids))


def test_task_tokens_are_the_ids_as_numbers(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.task_tokens("panoptic")
    assert tokens.dtype == torch.float32 and tokens.shape == (77,)
    assert tokens[:7].tolist() == ANCHORS["The task is panoptic"] and not tokens[7:].any()


def test_a_long_text_is_cut_and_still_ends() -> None:
    ids = Tokenizer(8).encode("one two three four five six seven eight nine")
    assert len(ids) == 8 and ids[0] == 49406 and ids[-1] == 49407


def test_the_shipped_vocabulary_is_clips_first_merges() -> None:
    packed = resources.files("oneformer").joinpath("assets/bpe_vocab.txt.gz").read_bytes()
    text = gzip.decompress(packed)
    assert text.count(b"\n") == NUM_MERGES and text.startswith(b"i n\nt h\na n\n")
    assert hashlib.sha256(text).hexdigest() == "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02"


def test_ids_equal_those_of_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    known = vocabulary()
    merges = [" ".join(merge) for merge in known.rank]
    ids = {**known.id_of, "<|startoftext|>": known.start, "<|endoftext|>": known.end}
    oracle = transformers.CLIPTokenizer(vocab=ids, merges=[tuple(m.split(" ")) for m in merges])
    texts = [
        *ANCHORS,
        "a photo with a road, route",
        "a photo with a door-stuff",
        "a photo with a tree;flora (tall)",
        "  spaces \t and\nlines  ",
        "don't they're I'm we'll he'd it's 've",
        "ABC déjà vu naïve Straße 12345 x2",
        "日本語の道 улица ☃ 🚗🚗",
        "cafe\u0301",
        "3D_box#7 -- 50% off!!!",
    ]
    for text in texts:
        expected = oracle(text)["input_ids"]
        assert [i for i in tokenizer.encode(text) if i] == expected, text


def test_html_and_case_do_not_matter(tokenizer: Tokenizer) -> None:
    assert clean(" A &amp;amp; B ") == "a & b"
    assert tokenizer.encode("A  PHOTO") == tokenizer.encode("a photo")


def test_a_copy_in_a_worker_has_the_known_texts_without_the_vocabulary(tokenizer: Tokenizer) -> None:
    tokenizer.encode("a photo with a wall")
    packed = pickle.dumps(tokenizer)
    assert len(packed) < 20_000
    copy = pickle.loads(packed)
    assert copy.encode("a photo with a wall") == tokenizer.encode("a photo with a wall")
    assert copy.encode("a text of its own") == tokenizer.encode("a text of its own")


def test_the_vocabulary_is_read_once_whatever_the_number_of_tokenizers() -> None:
    for length in (8, 9):
        Tokenizer(length).encode(f"text of {length}")
    assert vocabulary.cache_info().misses == 1
