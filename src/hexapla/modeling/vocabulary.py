"""A smaller encoder for texts of known languages: without the word pieces that these never need.

The table of word embeddings is most of a small multilingual model, 96 of the 117 million parameters of
the default encoder, and each language needs a small part of it (Abdaoui et al. 2020, arXiv 2010.05609).
A tokenizer that has lost pieces still cuts a text as before while all pieces of that cut are there: what
went could only compete with them, and scores and order of what stays are the same.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer
from torch import nn

from hexapla.modeling.encoder import Encoder
from hexapla.schema import UserError

Keep = Literal["characters", "used"]

_KINDS = ("Unigram", "WordPiece", "BPE")
_ASCII = frozenset(map(chr, range(0x21, 0x7F)))
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_BATCH = 1000


class Trimmed(NamedTuple):
    """Rows of the table of word embeddings."""

    before: int
    after: int


def trim(encoder: Encoder, texts: Iterable[str], *, keep: Keep) -> Trimmed:
    """Take out of tokenizer and embeddings, in place, what texts like these do not need.

    Special tokens, the encoder's prompts and ASCII's characters stay in any case. A character that has
    no piece any more is an unknown one.

    Args:
        encoder: a transformer behind a fast tokenizer: Unigram, WordPiece or BPE.
        texts: read once.
        keep: `characters`: every piece that is written in the texts' characters (as the tokenizer
            normalises them) and ASCII's, so that any text in these keeps its pieces and its vectors.
            `used`: the pieces that the texts are cut into and single characters, so that these texts
            keep their pieces; other words are cut into smaller ones.

    Raises:
        UserError: a tokenizer of another kind, or a table that does not fit its ids.
    """
    tokenizer, backbone = encoder.model.tokenizer, getattr(encoder.model[0], "model", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kind = type(getattr(backend, "model", None)).__name__
    if backend is None or backbone is None or kind not in _KINDS:
        raise _refusal(f"a tokenizer of the kind {kind} can't be trimmed, only {', '.join(_KINDS)}")
    encoder.touched()
    backend.no_truncation()
    backend.no_padding()
    spec = json.loads(backend.to_str())
    pieces = _pieces(spec)
    table = backbone.get_input_embeddings()
    if len(table.weight) <= max(pieces):
        raise _refusal(f"the tokenizer has the id {max(pieces)}, the model {len(table.weight)} embeddings")
    seen = _seen(backend, chain(encoder.prompts.values(), texts), keep)
    kept = _kept(spec["model"], pieces, _fixed(spec, tokenizer, backbone) & pieces.keys(), seen)
    places = {old: new for new, old in enumerate(kept)}
    smaller = _smaller(spec, pieces, places)
    before = len(table.weight)
    tokenizer._tokenizer = smaller
    _take(backbone, table, places)
    return Trimmed(before, len(kept))


class _Seen(NamedTuple):
    characters: set[str]
    used: set[int] | None
    """Ids; None for all that is written in the characters."""


def _seen(backend: Tokenizer, texts: Iterable[str], keep: Keep) -> _Seen:
    characters, used = set(_ASCII), set[int]()
    normalizer, pre = backend.normalizer, backend.pre_tokenizer
    for batch in _batches(texts):
        for text in batch:
            plain = normalizer.normalize_str(text) if normalizer else text
            # What the model sees: Metaspace marks blanks, ByteLevel writes bytes as characters.
            for word, _ in pre.pre_tokenize_str(plain) if pre else [(plain, None)]:
                characters.update(word)
        if keep == "used":
            for encoding in backend.encode_batch(batch, add_special_tokens=False):
                used.update(encoding.ids)
    return _Seen(characters, used if keep == "used" else None)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _pieces(spec: dict[str, Any]) -> dict[int, str]:
    """Piece by id: the model's, and those added beside them."""
    vocab = spec["model"]["vocab"]
    own = enumerate(p for p, _ in vocab) if isinstance(vocab, list) else ((i, p) for p, i in vocab.items())
    return {**dict(own), **{token["id"]: token["content"] for token in spec["added_tokens"]}}


def _fixed(spec: dict[str, Any], tokenizer: Any, backbone: Any) -> set[int]:
    """Ids that stay whatever the texts are."""
    model, backend = spec["model"], tokenizer.backend_tokenizer
    fixed = {token["id"] for token in spec["added_tokens"]} | set(tokenizer.all_special_ids)
    fixed |= {*backend.encode("").ids, *backend.encode("", "").ids, *_special(backbone.config).values()}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        # The score of an unknown character follows from the lowest.
        fixed |= {model["unk_id"], scores.index(min(scores))}
    elif model["unk_token"] is not None:
        fixed.add(model["vocab"][model["unk_token"]])
    if model.get("byte_fallback"):
        fixed |= {id_ for id_, piece in _pieces(spec).items() if _BYTE.fullmatch(piece)}
    for part in backbone.modules():
        # RoBERTa counts positions from the id of padding, so that has to stay where it is.
        if type(part).__name__.endswith("Embeddings") and getattr(part, "padding_idx", None) is not None:
            fixed |= set(range(part.padding_idx + 1))
    return fixed


def _special(config: Any) -> dict[str, int]:
    named = config.to_dict().items()
    return {name: id_ for name, id_ in named if name.endswith("_token_id") and isinstance(id_, int)}


def _kept(model: dict[str, Any], pieces: dict[int, str], fixed: set[int], seen: _Seen) -> list[int]:
    """Ids that stay, in their order."""
    first, last = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    # Where nothing stands for the unknown (ByteLevel), it would vanish from the text.
    whole_alphabet = model["type"] == "BPE" and model["unk_token"] is None

    def stays(id_: int) -> bool:
        bare = pieces[id_].removeprefix(first).removesuffix(last)
        if len(bare) <= 1:
            return whole_alphabet or seen.characters.issuperset(bare)
        return id_ in seen.used if seen.used is not None else seen.characters.issuperset(bare)

    kept = {id_ for id_ in pieces if id_ in fixed or stays(id_)}
    if model["type"] == "BPE":
        names = _with_parts({pieces[id_] for id_ in kept}, model["merges"], first)
        kept |= {id_ for id_, piece in pieces.items() if piece in names}
    return sorted(kept)


def _with_parts(names: set[str], merges: list[tuple[str, str]], prefix: str) -> set[str]:
    """With all that they may be merged from: the merges that made a word are then there, in their order."""
    size = 0
    while size < len(names):
        size = len(names)
        for one, other in reversed(merges):
            if one + other.removeprefix(prefix) in names:
                names |= {one, other}
    return names


def _smaller(spec: dict[str, Any], pieces: dict[int, str], places: dict[int, int]) -> Tokenizer:
    model = spec["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for id_, entry in enumerate(model["vocab"]) if id_ in places]
        model["unk_id"] = places.get(model["unk_id"])
    else:
        model["vocab"] = {piece: places[id_] for piece, id_ in model["vocab"].items() if id_ in places}
    if model["type"] == "BPE":
        known, prefix = model["vocab"], model["continuing_subword_prefix"] or ""
        model["merges"] = [
            (one, other)
            for one, other in model["merges"]
            if one in known and other in known and one + other.removeprefix(prefix) in known
        ]
    for token in spec["added_tokens"]:
        token["id"] = places[token["id"]]
    _renumber(spec["post_processor"] or {}, places)
    smaller = Tokenizer.from_str(json.dumps(spec))
    if smaller.get_vocab() != {pieces[old]: new for old, new in places.items()}:
        raise _refusal("the tokenizer's ids are in an order that does not outlast it")
    return smaller


def _renumber(processor: dict[str, Any], places: dict[int, int]) -> None:
    """The ids of special tokens in what puts them around a text."""
    for part in processor.get("processors", []):
        _renumber(part, places)
    for special in processor.get("special_tokens", {}).values():
        special["ids"] = [places[id_] for id_ in special["ids"]]
    for side in {"sep", "cls"} & processor.keys():
        piece, id_ = processor[side]
        processor[side] = [piece, places[id_]]


def _take(backbone: Any, table: nn.Embedding, places: dict[int, int]) -> None:
    """Rows of the table, which stays the same module: some models' is of a class that scales them."""
    rows = table.weight.detach()[list(places)].clone()
    table.weight = nn.Parameter(rows, requires_grad=table.weight.requires_grad)
    table.num_embeddings = backbone.config.vocab_size = len(places)
    if table.padding_idx is not None:
        table.padding_idx = places.get(table.padding_idx)
    for name, id_ in _special(backbone.config).items():
        setattr(backbone.config, name, places.get(id_))


def _refusal(reason: str) -> UserError:
    return UserError(f"train.trim_vocabulary: {reason}; set it to off")
