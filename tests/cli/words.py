"""Commands as they are typed."""

from __future__ import annotations

import pytest

from diffusionkit.cli import main


def call(line: str | list[str]) -> None:
    """Runs a command, a line or its words; that it exits with 0 is as good as that it returns."""
    try:
        main(line.split() if isinstance(line, str) else line)
    except SystemExit as end:
        assert end.code in (0, None)


def fails(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert not out and "Traceback" not in err
    return err
