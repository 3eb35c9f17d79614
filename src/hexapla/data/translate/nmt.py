"""Machine translation by models: OPUS-MT, M2M-100, NLLB-200 and MADLAD-400, with transformers.

The families differ in how a model learns which language to write: by a mark before the text, or by the first
token of the translation. Models run in fp32; they write the best beam, or the likeliest token at each step with
one beam, and are never sampled.
"""

import functools
import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.data.translate.by_sentence import refuse_unsupported, sentence_identity, translate_by_sentence
from hexapla.io import download, hashing
from hexapla.modeling.foreign_code import needs_foreign_code, refuse_foreign_code
from hexapla.schema import SOURCE_LANGUAGE, UserError, first_line
from hexapla.text.languages import is_known_language, standard_code

_LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""Whatever is loaded lies in the model's folder, and no code of a model is run."""

# --- families: language codes and tokenizers ---------------------------------------------------

_NLLB_ENGLISH = "eng_Latn"
_OPUS_BEST = {"cmn_Hans": 0, "cmn": 1}
"""OPUS-MT's names for Chinese that are better than the language's own code."""
# MADLAD-400 keeps codes that ISO 639 has replaced.
_MADLAD = {"he": "iw", "id": "in", "yi": "ji"}


class Target(NamedTuple):
    """What makes a model write a language: a mark before the English text, or the first token to write."""

    mark: str = ""
    token: int | None = None
    apart: str = ""
    """How marks begin; a space goes behind it wherever a text has it."""


def add_mark(text: str, target: Target) -> str:
    """Put the mark before a text, in which nothing else is one."""
    return target.mark + (text.replace(target.apart, f"{target.apart} ") if target.apart else text)


@functools.cache
def find_code(name: str) -> str:
    """Return our code of a language that models name by two or three letters; '' for what is no language.

    A macrolanguage gives its code to the one that is meant where nothing else is said: `ar` is `arb`, `ms` is
    `zsm`, `zh` is `cmn`.
    """
    import langcodes

    if not is_known_language(name):
        return ""
    plain, macro = (langcodes.standardize_tag(name, macro=macro) for macro in (False, True))
    return standard_code(name) if plain == macro else macro


def name_nllb_languages(vocabulary: Iterable[str]) -> dict[str, str]:
    """Find NLLB's language codes in its vocabulary; return them by our code of the language.

    They are ISO 639-3 and a script, such as `deu_Latn`. A language that comes in several scripts has its plain
    code in the likeliest one, and in the others a code with the script, such as `zh` and `zh-Hant`.
    """
    import langcodes

    by_code: dict[str, list[str]] = {}
    for code in sorted(vocabulary):
        if re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", code) and (name := find_code(code[:3])):
            by_code.setdefault(name, []).append(code)
    names = {}
    for name, codes in by_code.items():
        likeliest = langcodes.Language.get(name).maximize().script
        # Of Akan and Twi, which is a part of it, Akan has the code itself.
        codes.sort(key=lambda code: (code[4:] != likeliest, standard_code(code[:3]) != name, code))
        names[name] = codes[0]
        for code in codes[1:]:
            other = standard_code(code[:3])
            names[other if code[4:] == codes[0][4:] else f"{name}-{code[4:]}"] = code
    return names


def _open_marian(folder: Path, label: str) -> tuple[Any, dict[str, Target]]:
    """Open OPUS-MT (Tiedemann and Thottingal 2020): it has one target language, or marks such as >>deu<<."""
    from transformers import MarianTokenizer

    tokenizer = MarianTokenizer.from_pretrained(folder, **_LOCAL)
    source = find_code(tokenizer.source_lang or "")
    # Three letters may name a family that English belongs to, such as `gmw`.
    if len(source) == 2 and source != SOURCE_LANGUAGE:
        raise UserError(f"{label}: translates from '{tokenizer.source_lang}', wants one from English")
    marks: dict[str, list[str]] = {}
    for mark in tokenizer.supported_language_codes:
        name = mark.strip("<>")
        # Names with a script are variants that no code of ours means, but for Chinese.
        if code := find_code(name.partition("_")[0] if name in _OPUS_BEST else name):
            marks.setdefault(code, []).append(name)
    targets = {code: Target(mark=f">>{min(names, key=_rank_opus_name)}<< ") for code, names in marks.items()}
    target = find_code(tokenizer.target_lang or "")
    if target and target not in targets and (len(target) == 2 or not targets):
        targets[target] = Target()
    return tokenizer, targets


def _rank_opus_name(name: str) -> tuple[int, bool, bool, str]:
    """Sort OPUS-MT's names of one language: the macrolanguage, one of its languages, the two letters."""
    import langcodes

    whole = langcodes.Language.get(find_code(name.partition("_")[0])).to_alpha3()
    return _OPUS_BEST.get(name, len(_OPUS_BEST)), len(name) == 2, name != whole, name


def _open_m2m(folder: Path, label: str) -> tuple[Any, dict[str, Target]]:
    """Open M2M-100 (Fan et al. 2020, arXiv 2010.11125) or NLLB-200 (Costa-jussà et al. 2022, arXiv 2207.04672).

    They are one architecture with two tokenizers.
    """
    from transformers import M2M100Tokenizer, NllbTokenizer

    if (folder / "vocab.json").is_file():
        tokenizer = M2M100Tokenizer.from_pretrained(folder, **_LOCAL, src_lang=SOURCE_LANGUAGE)
        return tokenizer, {
            lang: Target(token=tokenizer.get_lang_id(lang)) for lang in tokenizer.lang_code_to_token
        }
    tokenizer = NllbTokenizer.from_pretrained(folder, **_LOCAL, src_lang=_NLLB_ENGLISH)
    vocabulary = tokenizer.get_vocab()
    if _NLLB_ENGLISH not in vocabulary:
        raise UserError(
            f"{label}: its tokenizer knows no language code '{_NLLB_ENGLISH}', so it is no NLLB-200"
        )
    return tokenizer, {
        lang: Target(token=vocabulary[code]) for lang, code in name_nllb_languages(vocabulary).items()
    }


def _open_t5(folder: Path, label: str) -> tuple[Any, dict[str, Target]]:
    """Open MADLAD-400 (Kudugunta et al. 2023, arXiv 2309.04662), which has a mark such as <2de> for each language.

    The tokenizer takes marks for pieces like others, wherever they are in a text.
    """
    from transformers import T5Tokenizer

    tokenizer = T5Tokenizer.from_pretrained(folder, **_LOCAL)
    vocabulary = tokenizer.get_vocab()
    marks = {found[1]: mark for mark in vocabulary if (found := re.fullmatch(r"<2([a-z]{2,3})>", mark))}
    if not marks:
        raise UserError(
            f"{label}: its tokenizer knows no language mark such as '<2de>', so it is no MADLAD-400"
        )
    marks |= {lang: marks[old] for lang, old in _MADLAD.items() if lang not in marks and old in marks}
    return tokenizer, {lang: Target(mark=f"{mark} ", apart="<") for lang, mark in marks.items()}


FAMILIES: dict[str, Callable[[Path, str], tuple[Any, dict[str, Target]]]] = {
    "marian": _open_marian,
    "m2m_100": _open_m2m,
    "t5": _open_t5,
}
"""By transformers' `model_type`: opens a folder's tokenizer, and finds the target of each language."""


# --- models ------------------------------------------------------------------------------------

_FILES = ("*.json", "*.safetensors", "*.model", "*.spm", "*.txt")
"""Files of a model that are loaded."""

_T5_TOKENS = 512
"""T5 has no positions to run out of; its models saw no longer texts in training."""


@dataclass(frozen=True)
class TranslationModel:
    """A model's folder and tokenizer; `open_model` makes it, and `load_weights` reads the weights."""

    model: str
    """The name in the settings."""
    folder: Path
    config: Any
    """transformers' configuration."""
    tokenizer: Any
    targets: dict[str, Target]
    """By language."""

    @property
    def label(self) -> str:
        return _label(self.model)

    @property
    def name(self) -> str:
        """The hub id, or the last part of a folder's path: the rest says nothing about the rows."""
        return Path(self.model).resolve().name if Path(self.model).is_dir() else self.model

    @property
    def longest(self) -> int:
        """The most tokens that the model reads, and that it writes."""
        return int(getattr(self.config, "max_position_embeddings", _T5_TOKENS))

    @cached_property
    def fingerprint(self) -> str:
        """The hub id with the commit, or the SHA-256 of the files that are loaded of a folder."""
        if not Path(self.model).is_dir():
            return f"{self.model.partition('@')[0]}@{self.folder.name}"
        files = sorted({file for pattern in _FILES for file in self.folder.glob(pattern)})
        lines = "".join(f"{file.name} {hashing.sha256(file)}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def identity(self) -> str:
        """The fingerprint, and the version of the library that makes tokens of texts."""
        return f"{self.fingerprint} transformers {version('transformers')}"

    def check(self, languages: Sequence[str]) -> None:
        """Raise UserError unless the model translates to all `languages`."""
        refuse_unsupported(languages, self.targets, self.label, "take them off the list, or another model")

    def encode(self, texts: Sequence[str], target: Target) -> list[list[int]]:
        """Make the model's input for each text, in which the text's own "<s>" or "</s>" is no control token."""
        given = [add_mark(text, target) for text in texts]
        ids: list[list[int]] = self.tokenizer(given, split_special_tokens=True)["input_ids"]
        return ids

    def limit(self, ids: Sequence[int]) -> int:
        """Return how many tokens a translation of this input may have; one that reaches it is a loop or a fragment.

        The limit depends on the text and not on its batch, so that the result does not depend on neighbors.
        """
        return min(3 * len(ids) + 32, self.longest - 1)

    def decode(self, written: Sequence[int], limit: int, target: Target) -> str | None:
        """Return the text of what a model wrote, without start and end token; None if it did not come to an end."""
        if len(written) >= limit - 1:  # at the limit itself the model may have been made to end
            return None
        # The language's token is no special one in every checkpoint: it goes by its place.
        ids = written[0 if target.token is None else 1 :]
        # Marian's would join the pieces by the rules of the source's side.
        options = {"use_source_tokenizer": False} if hasattr(self.tokenizer, "spm_target") else {}
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, **options)
        return text.strip() or None


def open_model(model: str) -> TranslationModel:
    """Open a local folder, or 'owner/name@commit' of the hub, which is downloaded first.

    Raises:
        UserError: no such folder, revision not pinned, hub out of reach, unknown family, code of its own, or
            broken files.
    """
    folder = _find_folder(model)
    refuse_foreign_code(folder, _label(model))
    with download.blame_broken_files(folder), explain_failure(_label(model)):
        import transformers  # takes seconds; only models need it

        config = transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
        if config.model_type not in FAMILIES:
            *some, last = FAMILIES
            wanted = f"{', '.join(some)} or {last}"
            raise UserError(f"{_label(model)}: is '{config.model_type}', wants {wanted}")
        tokenizer, targets = FAMILIES[config.model_type](folder, _label(model))
    known = {lang: target for lang, target in targets.items() if (target.token or 0) < config.vocab_size}
    return TranslationModel(model, folder, config, tokenizer, known)


def load_weights(opened: TranslationModel) -> Any:
    """Load the model in fp32 on the CPU, ready to translate.

    Raises:
        UserError: files are broken, or weights are missing.
    """
    import torch
    import transformers

    from hexapla.modeling.loading import strict_weights

    transformers.utils.logging.disable_progress_bar()
    broken = download.blame_broken_files(opened.folder)
    with broken, explain_failure(opened.label), strict_weights(opened.label):
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            opened.folder,
            **_LOCAL,
            use_safetensors=True,
            dtype=torch.float32,  # some are stored in fp16, which a CPU can't do well
        )
    # A family's own limit (200 tokens in M2M-100's) would cut passages; ours is set by the text.
    model.generation_config.max_length = None
    return model.eval()


@contextmanager
def explain_failure(label: str) -> Iterator[None]:
    """Turn whatever a broken or foreign model makes transformers raise into one line."""
    try:
        with warnings.catch_warnings():
            # Marian's tokenizer recommends a package for a normalizer that it no longer calls.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            yield
    except UserError:
        raise
    except Exception as error:
        if needs_foreign_code(error):
            raise UserError(f"{label}: needs code of its own, which is not run") from None
        line = first_line(error)
        raise UserError(f"{label}: can't be loaded: {type(error).__name__}: {line}") from None


def _label(model: str) -> str:
    return f"translate.model '{model}'"


def _find_folder(model: str) -> Path:
    repository, _, revision = model.partition("@")
    if not Path(model).is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or repository.startswith("."):
            raise UserError(f"{_label(model)}: no such folder, and no hub id ('owner/name@commit')")
        if not revision:
            raise UserError(f"{_label(model)}: pin the revision of a hub id, '{model}@<commit>'")
        download.require_commit(_label(model), "model", repository, revision)
    folder = Path(model) if Path(model).is_dir() else _download(model, repository, revision)
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"{_label(model)}: holds no safetensors, and pickled weights are not loaded; many models on the hub "
            "have them in a pull request, whose commit `hexapla plan --online` prints for @refs/pr/<number>"
        )
    return folder


def _download(model: str, repository: str, revision: str) -> Path:
    advice = "or give a local folder"
    return download.snapshot(repository, revision, _FILES, kind="model", label=_label(model), advice=advice)


# --- texts through a model ---------------------------------------------------------------------


def cut_batches(tokens: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Cut texts into batches of at most `budget` tokens, padding included; give the positions of each batch.

    The longest texts come first, and texts of one length in the order of their tokens, so that the batches do
    not depend on the order of the texts. A text longer than the budget is a batch of its own.
    """
    order = sorted(range(len(tokens)), key=lambda position: (-len(tokens[position]), tokens[position]))
    batches: list[list[int]] = []
    for position in order:
        # The first of a batch is its longest: all are padded to it.
        if not batches or (len(batches[-1]) + 1) * len(tokens[batches[-1][0]]) > budget:
            batches.append([])
        batches[-1].append(position)
    return batches


Generate = Callable[[list[list[int]], int, Target], list[list[int]]]
"""A model: from a batch of inputs, and the most tokens that may be written, to what it wrote for each input,
without start and end token."""


def translate_texts(
    model: TranslationModel, texts: Sequence[str], lang: str, budget: int, generate: Generate
) -> list[tuple[str, ...]]:
    """Translate English texts as `translate_by_sentence` does.

    A text has no translation if a sentence is too long for the model, or its translation does not come to an end.

    Args:
        model: whose tokenizer is used.
        texts: of any length.
        lang: the language to translate to, one of the model's.
        budget: tokens of a batch, padding included.
        generate: makes the model write.
    """
    target = model.targets[lang]
    return translate_by_sentence(
        texts, lang, lambda sentences: _translate_sentences(model, sentences, target, budget, generate)
    )


def _translate_sentences(
    model: TranslationModel, sentences: Sequence[str], target: Target, budget: int, generate: Generate
) -> list[str | None]:
    tokens = model.encode(sentences, target)
    fitting = [position for position, ids in enumerate(tokens) if len(ids) <= model.longest]
    translations: list[str | None] = [None] * len(tokens)
    for batch in cut_batches([tokens[position] for position in fitting], budget):
        positions = [fitting[number] for number in batch]
        limits = [model.limit(tokens[position]) for position in positions]
        written = generate([tokens[position] for position in positions], max(limits), target)
        for position, limit, ids in zip(positions, limits, written, strict=True):
            translations[position] = model.decode(ids, limit, target)
    return translations


# --- transformers ------------------------------------------------------------------------------


class TransformersEngine:
    """Translate by transformers, on a GPU where there is one; the first text loads the weights."""

    def __init__(self, model: str, *, batch_tokens: int, beams: int) -> None:
        """Open the model; raises as `open_model`."""
        self._opened = open_model(model)
        self.name = f"transformers:{self._opened.name}"
        self._batch_tokens, self._beams = batch_tokens, beams

    def identity(self, lang: str) -> str:
        """Leaves out `batch_tokens`, since padding changes last digits at most."""
        settings = f"beams={self._beams} fp32 {sentence_identity()}"
        return f"transformers {self._opened.identity} {lang} {settings}"

    def check(self, languages: Sequence[str]) -> None:
        self._opened.check(languages)

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        return translate_texts(self._opened, texts, lang, self._batch_tokens, self._generate)

    @cached_property
    def _model(self) -> Any:
        import accelerate

        return load_weights(self._opened).to(accelerate.PartialState().device)

    def _generate(self, batch: list[list[int]], most: int, target: Target) -> list[list[int]]:
        import torch

        rows = [torch.tensor(ids) for ids in batch]
        pad = torch.nn.utils.rnn.pad_sequence
        choice = {} if target.token is None else {"forced_bos_token_id": target.token}
        tokenizer, device = self._opened.tokenizer, self._model.device
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=pad(rows, True, tokenizer.pad_token_id).to(device),
                attention_mask=pad([torch.ones_like(row) for row in rows], True).to(device),
                max_new_tokens=most,
                num_beams=self._beams,
                do_sample=False,
                **choice,
            )
        end = tokenizer.eos_token_id
        written = [row[1:].tolist() for row in out]
        return [ids[: ids.index(end)] if end in ids else ids for ids in written]
