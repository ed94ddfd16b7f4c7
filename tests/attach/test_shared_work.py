"""Work that several processes share: all get all of it, and a process that is lost is named by every other one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIZE = 3
SILENCE = 8  # seconds; machines that run tests are busy
# Forked children spare the import of torch; the last one's output is that of all, a line each.
PROGRAM = """
import os, signal, sys, time
from datetime import timedelta
import torch.distributed as dist
from lightning_landscape.attach.ranks import on_every_rank

lost, way = int(sys.argv[1]), sys.argv[2]
children = []
for rank in range(3):
    child = os.fork()
    if child:
        children.append(child)
        continue
    os.environ.update(RANK=str(rank), WORLD_SIZE="3")
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))

    def work():
        if rank == lost and way == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if rank == lost and way == "exit":
            os._exit(9)
        time.sleep(1.5 * int(sys.argv[3]) if lost < 0 else 1 if rank else 100)
        return [rank] * (3 << 20 if way == "large" else 1)

    began = time.monotonic()
    try:
        found = on_every_rank(work, timedelta(seconds=int(sys.argv[3])), "the search", "Start again")
        said = [(len(part), part[0]) for part in found]
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    sys.stdout.write(f"{rank} {time.monotonic() - began:.0f} {said}\\n")
    sys.stdout.flush()
    os._exit(0)
if lost >= 0:
    for rank, child in enumerate(children):
        rank == lost or os.waitpid(child, 0)
    os.kill(children[lost], signal.SIGKILL) if way == "stop" else None
for child in children:
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass
"""


def run(lost: int, way: str) -> dict[int, tuple[float, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(lost), way, str(SILENCE)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        try:
            output = program.communicate(timeout=300)[0]
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
    lines = (line.split(" ", 2) for line in output.splitlines())
    return {int(rank): (float(seconds), said) for rank, seconds, said in lines}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["small", "large"])
def test_every_process_gets_all_results_however_long_they_take(way: str) -> None:
    size = 3 << 20 if way == "large" else 1  # more than one value of a store holds
    expected = str([(size, rank) for rank in range(SIZE)])
    outcomes = run(-1, way)
    assert {rank: said for rank, (_, said) in outcomes.items()} == dict.fromkeys(range(SIZE), expected)
    assert all(seconds > SILENCE for seconds, _ in outcomes.values())


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "way"), [(1, "stop"), (2, "exit"), (0, "stop")])
def test_a_lost_process_is_named_by_every_other_one(lost: int, way: str) -> None:
    outcomes = run(lost, way)
    assert outcomes.keys() == set(range(SIZE)) - {lost}
    for seconds, said in outcomes.values():
        # One that is stopped before the others begin has never come.
        assert re.match(rf"RankLostError: rank {lost} (stopped answering during|did not come to) the search", said)
        assert said.endswith("Start again")
        assert seconds < 60  # rank zero does not finish its 100 seconds
