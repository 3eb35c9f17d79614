"""What a row must meet to be trained on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_CODE = r"^[a-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*\Z"


def is_code(lang: str) -> bool:
    """Whether it looks like a language's code: de, zh-Hant."""
    return re.match(_CODE, lang) is not None


class Rule(NamedTuple):
    """An expectation under the name that our reports use; `shows` is the column that explains a failure."""

    name: str
    kind: str
    arguments: dict[str, Any]
    shows: str = ""

    @property
    def column(self) -> str:
        return str(self.arguments["column"])


def alone(
    lang: str, bounds: Mapping[str, float], *, identified: Sequence[str], answer_in_passage: bool
) -> list[Rule]:
    """What is expected of a row by itself.

    Args:
        lang: the rows' language; '' for rows whose language nobody knows.
        bounds: min_ and max_ of what has one, as `Validate.bounds` gives them.
        identified: the texts whose language is looked at: question, passage.
        answer_in_passage: whether an answer must stand in its passage.
    """
    code = {"column": "lang", "regex": _CODE}
    wanted = [_present(name) for name in ("id", "lang", "passage_id")]
    wanted.append(Rule("language code", "ExpectColumnValuesToMatchRegex", code, "lang"))
    for text in ("question", "passage"):
        chars, share = f"{text}_chars", f"{text}_script"
        wanted.append(_between(f"{text} not empty", chars, 1, None))
        wanted.append(_between(f"{text} length", chars, bounds[f"min_{chars}"], bounds[f"max_{chars}"]))
        wanted.append(_between(f"{text} script", share, bounds["min_script_share"], None))
    low, high = bounds["min_length_ratio"], bounds["max_length_ratio"]
    wanted.append(_between("passage length beside the English", "length_ratio", low, high))
    wanted += [_is(f"{text} language", f"{text}_language", lang, shows=True) for text in identified]
    wanted.append(_between("not a copy of the English", "copy_share", None, bounds["max_copy_share"]))
    wanted.append(_between("numbers kept", "numbers_kept", bounds["min_numbers_kept"], None))
    wanted.append(_between("meaning kept", "cosine", bounds["min_cosine"], None))
    if answer_in_passage:
        wanted.append(_is("answer in the passage", "answer_found", True))
    absent = {"column": "in_benchmark"}
    wanted.append(Rule("not in a benchmark", "ExpectColumnValuesToBeNull", absent, "in_benchmark"))
    return wanted


def _present(name: str) -> Rule:
    return Rule(f"{name} present", "ExpectColumnValuesToNotBeNull", {"column": name})


def _between(name: str, column: str, low: float | None, high: float | None) -> Rule:
    bounds = {"column": column, "min_value": low, "max_value": high}
    return Rule(name, "ExpectColumnValuesToBeBetween", bounds, column)


def _is(name: str, column: str, value: Any, *, shows: bool = False) -> Rule:
    only = {"column": column, "value_set": [value]}
    return Rule(name, "ExpectColumnValuesToBeInSet", only, column if shows else "")


BESIDE = [
    _is("one row an id and language", "only_row", True),
    _is("English row kept", "english_kept", True),
    _is("no repeated pair", "seen_before", False),
]
"""What is expected of a row beside all others; the second and third depend on which of those are kept."""
