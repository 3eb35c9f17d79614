"""Scripts that run as several processes, as ranks of one group."""

import os
import socket
import subprocess
import sys


def run(script, *arguments, count):
    """As `torchrun` and `accelerate launch` start them, without the seconds that those take themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count),
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    started = [
        subprocess.Popen(
            command,
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)},
            stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]
    for process in started:
        errors = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 0, errors
