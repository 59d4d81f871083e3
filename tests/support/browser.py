"""Chromium, where there is one."""

import shutil
import subprocess


def chromium():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def browse(path, tmp_path):
    """The document as Chromium sees it after loading, and what it had to say."""
    quiet = ["quic", "extensions", "background-networking", "component-update", "sync", "default-apps", "gpu"]
    command = [chromium(), "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
