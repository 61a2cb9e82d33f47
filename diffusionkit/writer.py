"""What every writer of samples has in common: a file that is whole or not there."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from diffusionkit.errors import UserError


class Writer(ABC):
    """A context manager that takes chunks and leaves the finished file; on an error or an interrupt it leaves nothing.

    Everything goes to a hidden neighbour of the target, which takes its name when it is finished.

    Args:
        codec: turns states into what is written.
        path: the target.
        n: how many samples will come.
    """

    def __init__(self, codec: Any, path: Path, n: int) -> None:
        self.codec, self.path, self.n, self.count = codec, path, n, 0
        self.part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        try:
            self._guard(self._open)
        except BaseException:
            self._guard(self._discard)
            raise
        return self

    @abstractmethod
    def write(self, x: Any) -> None:
        """Adds a chunk of states."""

    def add(self, chunk: Any) -> None:
        """Adds a chunk that has been decoded."""
        if self.count + len(chunk) > self.n:
            raise ValueError(f"{self.path}: more samples than the {self.n} announced")
        self._guard(lambda: self._add(chunk))
        self.count += len(chunk)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self.count != self.n:
                    raise ValueError(f"{self.path}: {self.count} samples instead of the {self.n} announced")
                self._guard(self._finish)
        finally:
            self._guard(self._discard)

    def _guard(self, action: Callable[[], None]) -> None:
        """Turns the file system's complaints into one sentence."""
        try:
            action()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"{self.path}: no space left on the disk; nothing was written") from error
            reason = error.strerror or error
            raise UserError(f"{self.path}: cannot be written ({reason}); nothing was written") from error

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def _add(self, chunk: Any) -> None: ...

    def _finish(self) -> None:
        os.replace(self.part, self.path)

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
