"""The rules against plain definitions of them, and the results that are kept of a run."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from hexapla.config import Validate
from hexapla.data.validate.checks import (
    EXAMPLES,
    TABLE_RULES,
    add_results,
    check_frame,
    is_language_code,
    row_rules,
)

BOUNDS = Validate().bounds()
ROW = {
    "id": "a", "lang": "de", "passage_id": "p", "question_chars": 20, "question_script": 1.0,
    "passage_chars": 100, "passage_script": 0.9, "length_ratio": 1.0, "passage_language": "de",
    "copy_share": 0.1, "numbers_kept": 1.0, "cosine": 0.9, "answer_found": True, "in_benchmark": None,
}  # fmt: skip
# A value that just passes, one that just fails, and the rule's name.
EDGES = [
    ("lang", "zh-Hant", "German", "language code"),
    ("id", "0", None, "id present"),
    ("passage_id", "0", None, "passage_id present"),
    ("question_chars", BOUNDS["min_question_chars"], BOUNDS["min_question_chars"] - 1, "question length"),
    ("question_chars", BOUNDS["max_question_chars"], BOUNDS["max_question_chars"] + 1, "question length"),
    ("passage_chars", BOUNDS["min_passage_chars"], BOUNDS["min_passage_chars"] - 1, "passage length"),
    ("question_script", BOUNDS["min_script_share"], 0.499, "question script"),
    ("question_script", np.nan, 0.0, "question script"),
    ("length_ratio", BOUNDS["max_length_ratio"], 3.001, "passage length relative to the English"),
    ("passage_language", "de", "nl", "passage language"),
    ("passage_language", None, "en", "passage language"),
    ("copy_share", BOUNDS["max_copy_share"], 0.801, "not a copy of the English"),
    ("numbers_kept", np.nan, 0.499, "numbers kept"),
    ("cosine", BOUNDS["min_cosine"], 0.749, "meaning kept"),
    ("answer_found", None, False, "answer in the passage"),
    ("in_benchmark", None, "sample", "not in a benchmark"),
]


def rules(lang="de"):
    return row_rules(lang, BOUNDS, identified=["passage"], answer_in_passage=True)


def test_a_rule_rejects_what_is_beyond_its_bound_and_nothing_else():
    rows = [{**ROW, column: value} for column, *values, _ in EDGES for value in values]
    frame = pd.DataFrame(rows).assign(row=np.arange(100, 100 + len(rows)))
    found = {check.rule.name: check for check in check_frame(rules(), frame)}
    expected = {}
    for number, (*_, name) in enumerate(EDGES):
        expected.setdefault(name, []).append(100 + 2 * number + 1)
    assert {name: check.failed.tolist() for name, check in found.items() if len(check.failed)} == expected
    assert found["question script"].result["missing"] == 1
    assert found["passage language"].result == {
        "name": "passage language", "expectation": "expect_column_values_to_be_in_set",
        "column": "passage_language", "rows": len(rows), "missing": 1, "failed": 2,
        "examples": [{"id": "a", "lang": "de", "value": lang} for lang in ("nl", "en")],
    }  # fmt: skip


def test_results_are_json_that_does_not_change_and_can_be_added_up():
    table = pd.DataFrame(
        {"row": np.arange(20), "id": [f"r{i}" for i in range(20)], "lang": "de", "english_kept": True}
    ).assign(only_row=lambda t: t["row"] % 3 > 0, seen_before=lambda t: t["row"] > 16)
    whole, again = ([c.result for c in check_frame(TABLE_RULES, table)] for _ in range(2))
    assert json.dumps(whole) == json.dumps(again)
    assert [one["failed"] for one in whole] == [7, 0, 3]
    parts = [check_frame(TABLE_RULES, table.iloc[part]) for part in (slice(0, 8), slice(8, 20))]
    assert add_results(check.result for part in parts for check in part) == whole
    assert [example["id"] for example in whole[0]["examples"]] == ["r0", "r3", "r6", "r9", "r12"]
    assert len(whole[0]["examples"]) == EXAMPLES


@pytest.mark.parametrize("code", ["de", "zh-Hant", "yue", "pt_BR", "de-1996"])
def test_language_codes_are_known_by_their_form(code):
    assert is_language_code(code)
    assert not is_language_code(code.title())
    assert not is_language_code(code + "\n")


def test_importing_the_module_does_not_load_great_expectations():
    heavy = "{'great_expectations', 'pandas', 'torch'}"
    code = f"import sys, hexapla.data.validate.checks; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
