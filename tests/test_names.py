"""A reader who meets a class by its name finds one class of that name."""

import ast
from collections import Counter

from conftest import ROOT


def test_no_two_classes_have_one_name():
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "src").rglob("*.py")]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, times in names.items() if times > 1] == []
