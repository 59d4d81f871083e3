"""One loop for all workers: which tasks are tried again, who gives up, and what a stop leaves."""

import os
import signal
import subprocess
import sys

import pytest

from spikebridge.pipeline.base.executors import ProcessPool, Workers, open_workers, worker_number
from spikebridge.pipeline.preprocess.isolation import run_in_subprocess


def die_once(task):
    """End the process, unless somebody did so before for this task."""
    mark, number = task
    if number == 1 and not mark.exists():
        mark.touch()
        os._exit(1)
    return number, worker_number()


def put_back(lost, waiting):
    waiting.extendleft(reversed(lost))


def test_a_dead_process_costs_another_attempt_at_what_was_in_hand(tmp_path):
    tasks, deaths = [(tmp_path / "mark", number) for number in range(6)], []

    def requeue(lost, waiting):
        deaths.append(lost)
        put_back(lost, waiting)

    with open_workers(processes=2) as workers:
        results = [result for _, result in workers.run(die_once, tasks, requeue=requeue)]
    assert sorted(number for number, _ in results) == list(range(6))
    assert {worker for _, worker in results} <= {0, 1}
    (lost,) = deaths
    assert tasks[1] in lost
    assert len(lost) <= ProcessPool(2).max_in_flight()


def test_what_requeue_raises_ends_the_loop(tmp_path):
    def give_up(lost, waiting):
        raise RuntimeError("enough")

    with open_workers(processes=2) as workers, pytest.raises(RuntimeError, match="enough"):
        list(workers.run(die_once, [(tmp_path / "mark", 1)], requeue=give_up))


def test_no_task_begins_after_a_stop():
    results = []
    coming = Workers().run(abs, [-1, -2, -3], requeue=put_back, stopping=lambda: len(results) == 2)
    results += [next(coming), next(coming)]
    assert list(coming) == []
    assert results == [(-1, 1), (-2, 2)]


def test_an_error_of_the_function_is_raised_here():
    for processes in (1, 2):
        with open_workers(processes=processes) as workers, pytest.raises(TypeError):
            list(workers.run(abs, ["text"], requeue=put_back))


def test_workers_end_when_their_parent_is_killed():
    """Idle ones, too: the pipe that all of them hold is closed when the last is gone."""
    code = "import os, signal\nfrom spikebridge.pipeline.base.executors import open_workers\n"
    code += "def requeue(lost, waiting): pass\n"
    code += "if __name__ == '__main__':\n    with open_workers(processes=2) as workers:\n"
    code += "        list(workers.run(abs, [-1], requeue=requeue))\n        os.kill(os.getpid(), signal.SIGKILL)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.communicate(timeout=120)[0] == b""
    assert parent.returncode == -9


@pytest.fixture
def interrupted_at_start(tmp_path, monkeypatch):
    """Have every Python process interrupt itself before it imports anything of ours, and hear it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, and be so there
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    assert subprocess.run([sys.executable, "-c", ""], capture_output=True, check=False).returncode != 0
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupted_at_start")
def test_a_ctrl_c_while_a_process_starts_is_left_to_its_parent(capfd):
    with open_workers(processes=2) as workers:
        assert [result for _, result in workers.run(abs, [-1, -2], requeue=put_back)] == [1, 2]
    assert run_in_subprocess(abs, -3) == 3
    assert capfd.readouterr().err == ""
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
