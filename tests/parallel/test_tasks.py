"""How many threads an engine uses."""

import pytest

from hexapla.parallel import tasks


@pytest.mark.parametrize(
    ("setting", "found"), [("", 6), ("3", 3), ("4,2", 4), (" 5 , 2", 5), ("0", 6), ("x", 6)]
)
def test_threads_are_as_set_or_one_a_core(setting, found, monkeypatch):
    monkeypatch.setattr(tasks, "cores", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert tasks.threads() == found
