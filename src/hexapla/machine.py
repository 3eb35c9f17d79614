"""Machine translation by transformers models: OPUS-MT, M2M-100 and NLLB-200.

They differ in their tokenizers and in how they are told the target language: by a mark before the
text, or by the first token that they must write.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.records import SOURCE_LANGUAGE, Mistake
from hexapla.translation import refuse_unsupported

# NLLB-200's codes (Costa-jussà et al. 2022, arXiv 2207.04672, table 1): ISO 639-3 and script.
# fmt: off
NLLB_CODES = {
    "ar": "arb_Arab", "bg": "bul_Cyrl", "bn": "ben_Beng", "cs": "ces_Latn", "da": "dan_Latn",
    "de": "deu_Latn", "el": "ell_Grek", "en": "eng_Latn", "es": "spa_Latn", "et": "est_Latn",
    "fa": "pes_Arab", "fi": "fin_Latn", "fr": "fra_Latn", "he": "heb_Hebr", "hi": "hin_Deva",
    "hr": "hrv_Latn", "hu": "hun_Latn", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan",
    "ko": "kor_Hang", "lt": "lit_Latn", "lv": "lvs_Latn", "ms": "zsm_Latn", "nl": "nld_Latn",
    "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn", "ru": "rus_Cyrl", "sk": "slk_Latn",
    "sl": "slv_Latn", "sv": "swe_Latn", "sw": "swh_Latn", "ta": "tam_Taml", "te": "tel_Telu",
    "th": "tha_Thai", "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "vi": "vie_Latn",
    "yo": "yor_Latn", "zh": "zho_Hans",
}
# fmt: on
# OPUS-MT's names for a language, best first, where they are not the two letters or NLLB's three.
_OPUS: dict[str, tuple[str, ...]] = {
    "ar": ("ara",),
    "fa": ("fas",),
    "lv": ("lav",),
    "ms": ("msa",),
    "sw": ("swa",),
    "zh": ("cmn_Hans", "cmn"),
}


class Target(NamedTuple):
    """How a model is told the language: a mark before the English text, or the first token to write."""

    mark: str = ""
    token: int | None = None


class Machine:
    """OPUS-MT, M2M-100 or NLLB-200 in fp32; the best beam, greedy with one beam, never sampled."""

    def __init__(self, model: str, *, batch_size: int, beams: int) -> None:
        """Raises Mistake: no such folder, revision not pinned, unknown family, or broken files."""
        self._folder = _folder(model)
        # Of a folder its last name: where it stands on this machine is no property of the rows.
        self.name = f"transformers:{Path(model).resolve().name if Path(model).is_dir() else model}"
        self._label, self._batch_size, self._beams = f"translate.model '{model}'", batch_size, beams
        with _loading(self._label):
            import transformers  # takes seconds; only this engine needs it

            config = transformers.AutoConfig.from_pretrained(self._folder, local_files_only=True)
            if config.model_type not in FAMILIES:
                raise Mistake(f"{self._label}: is '{config.model_type}', wants {' or '.join(FAMILIES)}")
            self._tokenizer, targets = FAMILIES[config.model_type](self._folder, self._label)
        self._longest: int = config.max_position_embeddings
        self._targets = {
            lang: target for lang, target in targets.items() if (target.token or 0) < config.vocab_size
        }

    @cached_property
    def _model(self) -> Any:
        import accelerate
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        with _loading(self._label):
            model, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                self._folder,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,  # some are stored in fp16, which a CPU can't do well
                output_loading_info=True,
            )
        if report["missing_keys"]:
            raise Mistake(f"{self._label}: weights are missing ({min(report['missing_keys'])}, ...)")
        # A family's own limit (200 tokens in M2M-100's) would cut passages; ours is set by the text.
        model.generation_config.max_length = None
        return model.eval().to(accelerate.PartialState().device)

    def check(self, languages: Sequence[str]) -> None:
        refuse_unsupported(languages, self._targets, self._label, "take them off the list, or another model")

    def translate(self, texts: Sequence[str], lang: str) -> list[tuple[str, ...]]:
        """Equal texts once, longest first. A text too long for the model has no translation.

        Nor has one whose translation does not come to an end: it is a loop or a fragment.
        """
        target = self._targets[lang]
        unique = [text for text in dict.fromkeys(texts) if text.strip()]
        found: dict[str, tuple[str, ...]] = {}
        tokens = self._tokenizer([target.mark + text for text in unique])["input_ids"] if unique else []
        jobs = [job for job in zip(unique, tokens, strict=True) if len(job[1]) <= self._longest]
        jobs.sort(key=lambda job: -len(job[1]))
        for start in range(0, len(jobs), self._batch_size):
            batch = jobs[start : start + self._batch_size]
            written = self._generate([ids for _, ids in batch], target)
            found.update((text, (new,)) for (text, _), new in zip(batch, written, strict=True) if new)
        return [found.get(text, ()) for text in texts]

    def _generate(self, batch: list[list[int]], target: Target) -> list[str]:
        """The translations of one batch of token ids; '' for one that does not end."""
        import torch

        # A text's own limit, not its batch's, so that the result does not depend on its neighbours.
        limits = [min(3 * len(ids) + 32, self._longest - 1) for ids in batch]
        rows = [torch.tensor(ids) for ids in batch]
        pad = torch.nn.utils.rnn.pad_sequence
        choice = {} if target.token is None else {"forced_bos_token_id": target.token}
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=pad(rows, True, self._tokenizer.pad_token_id).to(self._model.device),
                attention_mask=pad([torch.ones_like(row) for row in rows], True).to(self._model.device),
                max_new_tokens=max(limits),
                num_beams=self._beams,
                do_sample=False,
                **choice,
            )
        return [self._text(row[1:].tolist(), limit, target) for row, limit in zip(out, limits, strict=True)]

    def _text(self, ids: list[int], limit: int, target: Target) -> str:
        eos = self._tokenizer.eos_token_id
        end = ids.index(eos) if eos in ids else limit
        if end >= limit - 1:  # at the limit itself the model may have been made to end
            return ""
        # The language's token is no special one in every checkpoint: it goes by its place.
        start = 0 if target.token is None else 1
        # Marian's would join the pieces by the rules of the source's side.
        options = {"use_source_tokenizer": False} if hasattr(self._tokenizer, "spm_target") else {}
        text: str = self._tokenizer.decode(ids[start:end], skip_special_tokens=True, **options)
        return text.strip()


def _folder(model: str) -> Path:
    repository, _, revision = model.partition("@")
    if not Path(model).is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or repository.startswith("."):
            raise Mistake(f"translate.model '{model}': no such folder, and no hub id ('owner/name@revision')")
        if not revision:
            raise Mistake(f"translate.model '{model}': pin the revision of a hub id, '{model}@<commit>'")
    folder = Path(model) if Path(model).is_dir() else _download(model, repository, revision)
    if not list(folder.glob("*.safetensors")):
        raise Mistake(
            f"translate.model '{model}': holds no safetensors, and pickled weights are not loaded; many "
            "models on the hub have them in a pull request (@refs/pr/<number>)"
        )
    return folder


def _download(model: str, repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    files = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt"]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:
        raise Mistake(
            f"translate.model '{model}': can't be fetched from the hub ({type(error).__name__}); "
            "check id, revision and network, or give a local folder"
        ) from None


@contextmanager
def _loading(label: str) -> Iterator[None]:
    """What a broken or foreign checkpoint makes transformers raise, as one line."""
    try:
        with warnings.catch_warnings():
            # Marian's tokenizer recommends a package for a normaliser that it no longer calls.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            yield
    except Mistake:
        raise
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")[:200]
        raise Mistake(f"{label}: can't be loaded: {type(error).__name__}: {line}") from None


def _marian(folder: Path, label: str) -> tuple[Any, dict[str, Target]]:
    """OPUS-MT (Tiedemann and Thottingal 2020): one target language, or a mark such as >>deu<<."""
    from transformers import MarianTokenizer

    tokenizer = MarianTokenizer.from_pretrained(folder, local_files_only=True)
    names = {lang: (*_OPUS.get(lang, ()), code[:3], lang) for lang, code in NLLB_CODES.items()}
    foreign = [lang for lang, known in names.items() if tokenizer.source_lang in known]
    if foreign and foreign != [SOURCE_LANGUAGE]:
        raise Mistake(f"{label}: translates from '{tokenizer.source_lang}', wants one from English")
    targets = {}
    for lang, known in names.items():
        marks = [mark for name in known if (mark := f">>{name}<<") in tokenizer.supported_language_codes]
        if marks:
            targets[lang] = Target(mark=f"{marks[0]} ")
        elif tokenizer.target_lang in known:
            targets[lang] = Target()
    return tokenizer, targets


def _m2m(folder: Path, label: str) -> tuple[Any, dict[str, Target]]:
    """M2M-100 (Fan et al. 2020, arXiv 2010.11125) or NLLB-200: one architecture, two tokenizers."""
    from transformers import M2M100Tokenizer, NllbTokenizer

    if (folder / "vocab.json").is_file():
        tokenizer = M2M100Tokenizer.from_pretrained(folder, local_files_only=True, src_lang=SOURCE_LANGUAGE)
        return tokenizer, {
            lang: Target(token=tokenizer.get_lang_id(lang)) for lang in tokenizer.lang_code_to_token
        }
    english = NLLB_CODES[SOURCE_LANGUAGE]
    tokenizer = NllbTokenizer.from_pretrained(folder, local_files_only=True, src_lang=english)
    vocabulary = tokenizer.get_vocab()
    if english not in vocabulary:
        raise Mistake(f"{label}: its tokenizer knows no language code '{english}', so it is no NLLB-200")
    return tokenizer, {
        lang: Target(token=vocabulary[code]) for lang, code in NLLB_CODES.items() if code in vocabulary
    }


FAMILIES: dict[str, Callable[[Path, str], tuple[Any, dict[str, Target]]]] = {
    "marian": _marian,
    "m2m_100": _m2m,
}


def machine(*, model: str, batch_size: int, beams: int, **_: Any) -> Machine:
    return Machine(model, batch_size=batch_size, beams=beams)
