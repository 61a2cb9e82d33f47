"""The command line. Every command imports torch and the like only when it runs, so that help comes at once."""

from __future__ import annotations

import errno
import os
import sys

from cyclopts import App, CycloptsError

from diffusionkit import __version__
from diffusionkit.cli.dock import dock
from diffusionkit.cli.draw import interpolate, sample
from diffusionkit.cli.edit import edit, inpaint, restore, upscale
from diffusionkit.cli.exchange import export, import_
from diffusionkit.cli.look import compare, evaluate, info, plot
from diffusionkit.cli.start import recipes, train
from diffusionkit.errors import TrainingStopped, UserError
from diffusionkit.schema import nearest

_HELP = """Train diffusion models and sample from them.

A model is described by a recipe and trained into a run folder; all other commands take that folder.

    diffusionkit train image/digits --out runs/digits
    diffusionkit sample runs/digits
"""


def _app() -> App:
    app = App(name="diffusionkit", help=_HELP, version=__version__)
    app.suppress_keyboard_interrupt = False
    for command in (
        train,
        sample,
        inpaint,
        edit,
        restore,
        upscale,
        dock,
        evaluate,
        compare,
        interpolate,
        plot,
        info,
        recipes,
    ):
        app.command(command, sort_key=len(list(app)))
    app.command(import_, name="import", sort_key=len(list(app)))
    app.command(export, sort_key=len(list(app)))
    app.register_install_completion_command(add_to_startup=False)
    return app


def _misread(error: CycloptsError) -> str:
    """What is wrong with a command or an option, with the nearest right one."""
    word = next(iter(getattr(error, "unused_tokens", None) or ()), "")
    near = nearest(word, list(app)) if word.startswith("-") else ""
    return f"unknown option {word}{near}" if near else str(error)


def _complain(message: str) -> None:
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("error: ", style="bold red", end="")
    console.print(message, markup=False)


def main(tokens: list[str] | None = None) -> None:
    """Runs one command; `tokens` are its words, else those of the process.

    Exits with status 2 after a mistake of the user, told in one message without a traceback, with 1 if training cannot go on, and
    with 130 after Ctrl-C.
    """
    try:
        app(tokens, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        _complain(_misread(error))
        sys.exit(2)
    except UserError as error:
        _complain(str(error))
        sys.exit(2)
    except TrainingStopped as error:
        _complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR):
            raise
        _complain(f"{error.strerror}{f': {error.filename}' if error.filename else ''}")
        sys.exit(2)


app = _app()
