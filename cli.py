"""The command line of spikebridge: puts the verbs together, each in a file of its own named like it.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but recordings were
rejected, 4 verification failed, 130 interrupted (Ctrl-C), 138 and 143 training stopped by SIGUSR1 and SIGTERM with a
checkpoint (under torchrun, of its workers). Heavy packages are imported inside the verbs that need them.
"""

from __future__ import annotations

import _thread
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

if not __package__:  # `python cli.py` in a clone, installed or not: src/spikebridge is the clone itself
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

import click

from spikebridge import __version__
from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.plugins.loading import add_plugin
from spikebridge.pipeline.ui.terminal import StderrHandler, complete_writes, failure, is_main_process
from spikebridge.pipeline.verbs.training import Training
from spikebridge.train.config.recipes import fitting_recipe, load_recipe
from spikebridge.train.config.shipped import RECIPES
from spikebridge.train.errors import RunStoppedError, TrainError
from spikebridge.train.signals import EXIT_CODES
from spikebridge.train.verbs.options import point_to_setting

VERBS = {
    "pipeline": "datasets simulate preprocess finish verify inspect convert migrate combine subset diff push pull",
    "train": (
        "calibrate match import_checkpoint train evaluate predict export compare ablate runs track report landscape "
        "recipes grids"
    ),
}
"""By package, in the order of the work."""
INTERRUPTED = 130
NO_MEMORY = re.compile(
    "can't allocate memory|can't start new thread|bad_alloc"
    "|could not (create|execute) an? (primitive|memory object|stream|engine)$"
)
"""Words of a RuntimeError, from torch, its oneDNN and threading, that is one of memory."""

# Torch's OpenMP threads spin for milliseconds behind every operation, on the cores that the kernels' threads need. This
# is looked up when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


class Commands(click.Group):
    """A group that turns the errors of the packages into one paragraph on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the work, in which they were added."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take --plugin out of the arguments, wherever it stands before a `--`."""
        rest = list[str]()
        words = iter(args)
        for word in words:
            if word == "--":
                rest += [word, *words]
            elif word == "--plugin" or word.startswith("--plugin="):
                path = word.partition("=")[2] or next(words, "")
                try:
                    add_plugin(path)
                except PipelineError as error:
                    raise click.BadParameter(str(error), ctx, param_hint="--plugin") from error
            else:
                rest.append(word)
        return super().parse_args(ctx, rest)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        words = ctx.args  # of which click makes an empty list
        _over.clear()
        try:
            with _interrupts_kept():
                return super().invoke(ctx)
        except click.NoSuchOption as error:
            raise point_to_setting(error, words) from None
        except RunStoppedError as stopped:
            click.echo(str(stopped), err=True)
            ctx.exit(EXIT_CODES[stopped.signal])
        except (PipelineError, TrainError) as error:
            raise failure(str(error)) from error
        except ValueError as error:
            if type(error).__module__ != "spikebridge.models.errors":  # torch is slow to import, so look before asking
                raise
            raise failure(str(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
            again = "Once that is mended, the same command continues."
            raise failure(f"{where}{error.strerror or error}.{notes} {again}") from error
        except (KeyboardInterrupt, click.Abort):
            _over.set()
            if sys.stderr is not None and sys.stderr.isatty():
                click.echo(err=True)  # the cursor stands behind a progress bar and the terminal's ^C
            click.echo("Interrupted. What is finished stays; the same command continues.", err=True)
            ctx.exit(INTERRUPTED)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
                raise
            raise failure("there is not enough memory for this. What is finished stays.") from error
        finally:
            _over.set()


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Have a Ctrl-C count where a library makes another error of it, as torch does in the middle of a conversion."""
    heard = False

    def hear(_number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = usual and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, hear)
    try:
        yield
    except click.exceptions.Exit:
        raise
    except Exception as error:
        if heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


_over = threading.Event()
"""Set when a verb has ended, or its Ctrl-C has been answered: no other must come."""


def _repeat_interrupt() -> None:
    """Interrupt the main thread until it answers."""
    main = threading.main_thread().ident
    assert main is not None
    for pause_s in (0.01, 0.1, 1.0):
        if _over.wait(pause_s):
            return
        signal.pthread_kill(main, signal.SIGINT)  # which also wakes a wait


def _interrupt_again(ignored: Any) -> None:
    """Repeat a Ctrl-C that came while an object was being deleted, where Python prints it and goes on."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        with suppress(KeyboardInterrupt):  # the repeated one may come before this ends, and comes once more
            _thread.start_new_thread(_repeat_interrupt, ())
    else:
        sys.__unraisablehook__(ignored)


def _examine_training(runs: Path) -> dict[str, Any]:
    """Return what training finds on this machine; without torch, why it cannot be imported."""
    try:
        from spikebridge.train.doctor import examine
    except ImportError as error:
        return {"torch": f"cannot be imported: {error}", "gpus": [], "fast_paths": [], "runs": []}
    return examine(runs)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--plugin",
    metavar="FILE.py",
    multiple=True,
    expose_value=False,
    help="Import methods, networks, neurons or data sets of your own; goes with every verb, before or behind it.",
)
@click.version_option(__version__, prog_name="spikebridge")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Static-to-event transfer training for spiking neural networks.

    \b
    From raw data to a result:
      spikebridge simulate digits --out raw
      spikebridge preprocess --dataset digits --events raw --static raw --out shards
      spikebridge train --shards shards --recipe digits --run run

    \b
    Examples of every verb: spikebridge VERB --help. What this machine offers: spikebridge doctor.
    """
    sys.stdout = complete_writes(sys.stdout)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _interrupt_again
    ctx.obj = Training(
        recipe_names=RECIPES.names,
        recipe_shards=lambda recipe: load_recipe(recipe).tables()["shards"],
        fitting_recipe=fitting_recipe,
        examine=_examine_training,
    )
    # What other packages note, such as the fonts that matplotlib looked up, says nothing about the work.
    others, ours = (logging.WARNING, logging.INFO) if is_main_process() else (logging.ERROR, logging.ERROR)
    logging.basicConfig(format="%(message)s", handlers=[StderrHandler()], level=others)
    logging.getLogger("spikebridge").setLevel(ours)


for package, names in [*VERBS.items(), ("pipeline", "doctor completion")]:
    for name in names.split():
        main.add_command(getattr(import_module(f"spikebridge.{package}.verbs.{name}"), name))


if __name__ == "__main__":
    main()
