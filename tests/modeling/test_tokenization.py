from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from conftest import LANGUAGES, sample
from hexapla.modeling import encoder
from hexapla.modeling.tokenization import batches, budget, extras, padded, pieces

PROMPTS = {"query": "ask: ", "passage": "text: "}


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    loaded = encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu")
    loaded.model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return loaded


@given(lengths=st.lists(st.integers(1, 300), max_size=200), size=st.integers(1, 2000))
def test_each_text_is_in_one_batch_and_no_batch_above_the_budget_unless_a_single_text(lengths, size):
    made = list(batches(lengths, size))
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    for batch in made:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= size
        assert sum(longest - lengths[i] for i in batch) <= size // 16
    ends = [(min(lengths[i] for i in b), max(lengths[i] for i in b)) for b in made]
    assert all(one[1] <= two[0] for one, two in pairwise(ends))


def test_a_gpu_gets_larger_batches():
    assert budget(torch.device("cuda")) > budget(torch.device("cpu")) >= 1024


@pytest.mark.parametrize("side", ["query", "passage"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_features_are_those_of_sentence_transformers(tiny, side, padding, monkeypatch):
    monkeypatch.setattr(tiny.model.tokenizer, "padding_side", padding)
    texts = ["", *(row["passage"] for row in sample("de")[:9]), "a " * 300]
    for tokens in (8, 40, 9999):
        ours, theirs = padded(tiny, pieces(tiny, texts, side, tokens)), tiny.tokenize(texts, side, tokens)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert set(theirs) - set(ours) == set(extras(tiny, texts, side, tokens) or {})


def test_pairs_are_those_of_sentence_transformers_while_they_fit(tiny):
    pairs = [(row["question"], row["passage"][:60]) for row in sample("es")[:9]]
    ours, theirs = padded(tiny, pieces(tiny, pairs, "passage", 128)), tiny.tokenize(pairs, "passage", 128)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@given(sentence=st.integers(0, 60), context=st.integers(0, 60), limit=st.integers(8, 50))
def test_of_a_pair_only_the_context_is_cut(tiny, sentence, context, limit):
    first, second = "der " * sentence, "und " * context

    def ids(text):
        return tiny.model.tokenizer(text, add_special_tokens=False)["input_ids"]

    head, tail = ids(PROMPTS["query"] + first), ids(second)
    (made,) = pieces(tiny, [(first, second)], "query", limit)
    if len(head) < limit - 3:
        assert made["input_ids"] == [2, *head, 3, *tail[: limit - 3 - len(head)], 3]
    else:
        assert made["input_ids"] == [2, *head[: limit - 2], 3]


def test_a_model_that_is_fed_another_way_is_noticed(tiny, monkeypatch):
    theirs = tiny.tokenize
    monkeypatch.setattr(tiny, "tokenize", lambda *a: {**theirs(*a), "position_ids": torch.zeros(1)})
    assert extras(tiny, ["a"], "query", 16) is None
    monkeypatch.setattr(
        tiny, "tokenize", lambda *a: {k: v + 1 for k, v in theirs(*a).items() if k != "modality"}
    )
    assert extras(tiny, ["a"], "query", 16) is None


def test_texts_and_pairs_may_stand_side_by_side(tiny):
    mixed = ["eins", ("zwei", "drei vier"), "fünf"]
    together = pieces(tiny, mixed, "query", 32)
    assert together == [pieces(tiny, [text], "query", 32)[0] for text in mixed]
    assert np.ndim(padded(tiny, together)["input_ids"]) == 2


def test_several_threads_may_tokenise_at_once_each_to_its_own_length(tiny):
    texts = [row["passage"] for lang in LANGUAGES for row in sample(lang)[:40]]
    wanted = {tokens: pieces(tiny, texts, "passage", tokens) for tokens in (12, 60)}
    with ThreadPoolExecutor(4) as threads:
        made = [(tokens, threads.submit(pieces, tiny, texts, "passage", tokens)) for tokens in (12, 60) * 10]
        assert all(each.result() == wanted[tokens] for tokens, each in made)
