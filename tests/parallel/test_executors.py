import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

import chores
from hexapla.config import Executor
from hexapla.parallel import executors
from hexapla.parallel.executors import Progress
from hexapla.parallel.tasks import Failure, Task
from hexapla.schema import UserError


def tasks(count, *arguments, size=1):
    return [Task(f"k{n}", "de" if n % 2 else "es", (n, *arguments), size) for n in range(count)]


def noted(folder, count, *arguments):
    return [Task(f"k{n}", "", (str(folder), n, *arguments), 1) for n in range(count)]


def done(function, given, *, count=2, retries=2, **options):
    """What was saved, by key, and the failures; a result that is saved twice is a mistake."""
    saved = {}

    def save(task, result):
        assert task.key not in saved
        saved[task.key] = result

    options.setdefault("on_gpu", False)
    failures = executors.run(function, given, Executor(workers=count, retries=retries), save=save, **options)
    assert multiprocessing.active_children() == []
    return saved, failures


def soon(condition, seconds=15):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_results_wherever_tasks_run(count):
    assert done(chores.square, tasks(9), count=count) == ({f"k{n}": n * n for n in range(9)}, [])


@given(st.lists(st.integers(0, 4), max_size=7), st.integers(0, 3))
def test_a_task_is_tried_as_often_as_it_may_be_and_failures_come_in_order(failing, retries):
    calls = Counter()

    def work(number):
        calls[number] += 1
        if calls[number] <= failing[number]:
            raise ValueError(f"no {number}")
        return -number

    saved, failures = done(work, iter(tasks(len(failing))), count=1, retries=retries)
    given_up = [n for n, times in enumerate(failing) if times > retries]
    assert [(each.task.key, each.error) for each in failures] == [
        (f"k{n}", f"ValueError: no {n}") for n in given_up
    ]
    assert saved == {f"k{n}": -n for n in range(len(failing)) if n not in given_up}
    assert calls == {n: min(times, retries) + 1 for n, times in enumerate(failing)}


@pytest.mark.parametrize("good", [None, 3, 12])
def test_what_ails_all_is_not_tried_with_all(good, caplog):
    calls = Counter()

    def work(number):
        calls[number] += 1
        if number != good:
            raise ValueError(f"no {number}")
        return number

    saved, failures = done(work, iter(tasks(20)), count=1, retries=2)
    tried = 20 if good == 3 else 8
    assert [each.task.key for each in failures] == [f"k{n}" for n in range(tried) if n != good]
    assert calls == {n: 1 if n == good else 3 for n in range(tried)}
    assert saved == ({"k3": 3} if good == 3 else {})
    assert ("8 tasks failed and none succeeded; the others are not tried" in caplog.messages) == (good != 3)


def test_those_under_way_end_when_no_more_are_tried(tmp_path):
    """One that runs still when the eighth failure is final succeeds: then all are tried."""
    given = [Task(f"k{n}", "", (str(tmp_path), n, 1 if n != 7 else 0), 1) for n in range(12)]
    saved, failures = done(chores.late, given, retries=0)
    assert saved == {"k7": 49}
    assert [each.task.key for each in failures] == [f"k{n}" for n in range(12) if n != 7]


@pytest.mark.parametrize("count", [1, 2])
def test_a_failing_task_is_told_in_one_line_and_the_others_go_on(tmp_path, caplog, count):
    saved, failures = done(chores.fallible, noted(tmp_path, 6, 1), count=count, retries=0)
    assert not saved
    assert failures[4] == Failure(noted(tmp_path, 6, 1)[4], "ValueError: 4 is not ready")
    caplog.clear()
    saved, failures = done(chores.fallible, noted(tmp_path, 6, 3), count=count, retries=2)
    assert (len(saved), failures) == (6, [])
    assert caplog.messages.count(" k4: ValueError: 4 is not ready; trying again") == 2


def test_a_users_mistake_is_told_as_it_is():
    def work(_):
        raise UserError("models/x: not found")

    assert [each.error for each in done(work, tasks(1))[1]] == ["models/x: not found"]


def test_a_killed_worker_costs_its_running_task_alone(tmp_path):
    dying = {2: 1, 5: 9}
    given = [Task(f"k{n}", "", (str(tmp_path), n, dying.get(n, 0)), 1) for n in range(12)]
    saved, failures = done(chores.mortal, given)
    assert saved == {f"k{n}": n * n for n in range(12) if n != 5}
    assert [(each.task.key, "SIGKILL" in each.error) for each in failures] == [("k5", True)]
    assert {n: chores.tries(tmp_path, n) for n in range(12)} == {n: {2: 2, 5: 3}.get(n, 1) for n in range(12)}


def test_a_worker_that_is_killed_while_it_sends_stops_nobody(tmp_path):
    saved, failures = done(chores.cut_short, noted(tmp_path, 6))
    assert (sorted(saved), failures) == ([f"k{n}" for n in range(6)], [])
    assert chores.tries(tmp_path, 1) == 2


def test_what_cannot_be_sent_fails_and_harms_nobody():
    saved, failures = done(chores.unsendable, tasks(6), retries=0)
    assert saved == {"k0": 0, "k2": 2, "k4": 4}
    assert len(failures) == 3
    assert all("pickle" in each.error for each in failures)
    odd = [Task("k", "", (lambda: 0,), 1), *tasks(3)]
    saved, failures = done(chores.square, odd, retries=0)
    assert sorted(saved) == ["k0", "k1", "k2"]
    assert "pickle" in failures[0].error


def test_a_few_tasks_are_taken_ahead_and_results_are_saved_as_they_come():
    drawn, most, saved = 0, 0, 0

    def each():
        nonlocal drawn
        for task in tasks(30):
            drawn += 1
            yield task

    def save(task, result):
        nonlocal most, saved
        most, saved = max(most, drawn - saved), saved + 1

    executors.run(chores.square, each(), Executor(workers=2), save=save, on_gpu=False)
    assert saved == drawn == 30
    assert most <= 2


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_when_saving_fails_all_ends_at_once(tmp_path, error):
    def save(task, result):
        soon(lambda: all((tmp_path / str(n)).is_file() for n in (0, 1)))
        raise error

    given = [Task(f"k{n}", "", (str(tmp_path), n, 60 * min(n, 1)), 1) for n in range(3)]
    began = time.monotonic()
    with pytest.raises(type(error)) as raised:
        executors.run(chores.slow, given, Executor(workers=2), save=save, on_gpu=False)
    assert raised.value is error
    assert time.monotonic() - began < 20
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("number", "group"), [("SIGKILL", False), ("SIGTERM", False), ("SIGINT", True)])
def test_no_worker_outlives_the_program(tmp_path, number, group):
    given = [sys.executable, chores.__file__, str(tmp_path)]
    program = subprocess.Popen(given, start_new_session=True, stderr=subprocess.PIPE, text=True)
    notes = [tmp_path / "0", tmp_path / "1"]
    soon(lambda: all(note.is_file() and note.read_text().endswith("\n") for note in notes))
    pids = [int(note.read_text()) for note in notes]
    assert all(map(chores.alive, pids))
    (os.killpg if group else os.kill)(program.pid, signal.Signals[number])
    said = program.communicate(timeout=15)[1]
    soon(lambda: not any(map(chores.alive, pids)), 5)
    assert said.count("Traceback") == (1 if group else 0)


def test_what_is_light_stays_in_this_process():
    here = {pid for pid, _ in done(chores.where, tasks(4, size=5), light=21)[0].values()}
    assert here == {os.getpid()}
    known = done(chores.where, iter(tasks(4, size=5)), light=21, totals=Counter(de=10, es=10))[0]
    assert {pid for pid, _ in known.values()} == {os.getpid()}
    there = {pid for pid, _ in done(chores.where, tasks(4, size=5), light=20)[0].values()}
    assert len(there) == 2
    assert os.getpid() not in there


def test_no_more_workers_than_tasks():
    assert {pid for pid, _ in done(chores.where, tasks(1), count=9)[0].values()} == {os.getpid()}
    assert done(chores.square, [], count=9) == ({}, [])


def test_workers_find_their_gpu_and_their_threads_when_they_import(monkeypatch):
    monkeypatch.setattr(executors, "_gpus", lambda: ("4", "GPU-7"))
    monkeypatch.setattr(executors, "cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    found = [found for _, found in done(chores.where, tasks(6), count=0, on_gpu=True)[0].values()]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in found} == {"4", "GPU-7"}
    assert {each["OMP_NUM_THREADS"] for each in found} == {"3"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,GPU-7"
    assert "OMP_NUM_THREADS" not in os.environ


def test_threads_that_the_user_has_set_stay(monkeypatch):
    monkeypatch.setattr(executors, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    assert executors.environments(3, ("0", "1")) == [
        {"RAYON_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": name} for name in ("0", "1", "0")
    ]
    assert executors.environments(9, ()) == [{"RAYON_NUM_THREADS": "1"}] * 9


def test_an_idle_workers_death_is_no_tasks_fault():
    with executors.pool([{}]) as place:
        pid = place.submit(os.getpid, ()).result().result
        os.kill(pid, signal.SIGKILL)
        soon(lambda: not multiprocessing.active_children())
        assert place.submit(chores.square, (3,)).result().result == 9


def test_progress_is_told_by_label(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(executors, "LOG_EVERY", 0.0)
    given = tasks(4, size=1000)
    done(chores.square, given, count=1, describe="translate")
    assert caplog.messages[0].startswith("translate: 1,000 of 4,000 texts, ")
    assert caplog.messages[0].endswith("left; es 1,000/2,000")
    assert caplog.messages[-1].startswith("translate: 4,000 of 4,000 texts, ")
    caplog.clear()
    done(chores.square, iter(given), count=1, unit="rows")
    assert caplog.messages[1].startswith("square: 2,000 rows, ")
    assert caplog.messages[1].endswith("/s; es 1,000, de 1,000")
    caplog.clear()
    done(chores.square, iter(given), count=1, totals=Counter(de=2000, es=2000))
    assert caplog.messages[1].endswith("left; es 1,000/2,000, de 1,000/2,000")


def test_progress_tells_rate_and_time_left():
    with tqdm(disable=True) as bar:
        shown = Progress("translate", "texts", Counter(de=8000, es=8000), bar)
        shown.advance("de", 4000)
        assert shown.line(10.0) == "translate: 4,000 of 16,000 texts, 400/s, 00:30 left; de 4,000/8,000"


def test_a_worker_imports_nothing_before_its_task_that_reads_the_environment():
    heavy = "{'torch', 'tokenizers', 'ray', 'ctranslate2'}"
    code = f"import hexapla.parallel.executors, sys; print({heavy} & {{*sys.modules}})"
    reported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert reported.stdout == "set()\n"
