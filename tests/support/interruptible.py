"""Processes that hear a Ctrl-C, also where the tests run in the background and inherit SIGINT as ignored."""

import signal
import subprocess
import threading


def start_interruptible(command, **options):
    """Start a process as a shell in the foreground does, with the default action for SIGINT; see `subprocess.Popen`."""
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a handler is not inherited, `ignored` is
    try:
        return subprocess.Popen(command, **options)
    finally:
        signal.signal(signal.SIGINT, before)
