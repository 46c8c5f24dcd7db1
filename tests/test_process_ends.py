from __future__ import annotations

import subprocess
import sys
import time

import psutil

from loramill.process_ends import end_within, lives, process_name


def test_a_zombie_and_a_process_that_is_gone_are_dead_and_one_that_sleeps_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        started = time.monotonic()
        assert not end_within([process], 0.2)
        assert time.monotonic() - started >= 0.2
        child.kill()
        assert end_within([process], 5)  # nobody has waited for it yet
        assert process.status() == psutil.STATUS_ZOMBIE
    assert end_within([process], 0)


def test_a_named_process_is_found_again_until_it_ends() -> None:
    said = "from loramill.process_ends import process_name; print(process_name(), flush=True); input()"
    command = [sys.executable, "-c", said]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        name = child.stdout.readline().strip()
        assert lives(name) is True
        child.kill()
    assert lives(name) is False


def test_a_later_process_with_the_same_number_is_another_one() -> None:
    host, number, started = process_name().split(":")
    assert lives(f"{host}:{number}:{started}") is True
    assert lives(f"{host}:{number}:{float(started) - 5}") is False
    assert lives(f"elsewhere:{number}:{started}") is None
    assert lives(f"{host}:{number}") is None  # a worker, whose lease tells
