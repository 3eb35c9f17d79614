"""How many cores and threads there are for work."""

import os


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """That an engine should take: as many as OMP_NUM_THREADS says, else one a core.

    Of a list, which is by levels of nested loops ("4,2"), the first counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return (int(first) if first.isdecimal() else 0) or cores()
