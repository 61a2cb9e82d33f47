"""The section `training` refuses what cannot be."""

from __future__ import annotations

import pytest

from diffusionkit.training.module import learning_rate
from diffusionkit.training.options import Training


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", -1),
        ("batch_size", 0),
        ("accumulate", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("ema", 1.0),
        ("warmup", -1),
        ("clip", -0.5),
        ("decay", "stairs"),
        ("precision", "16"),
        ("betas", (0.9, 1.0)),
    ],
)
def test_refusals_name_the_key(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Training(**{name: value})  # type: ignore[arg-type]


def test_learning_rate_rises_then_falls_to_zero() -> None:
    options = Training(steps=100, lr=1.0, warmup=10)
    assert learning_rate(options, 0) == pytest.approx(0.1)
    assert learning_rate(options, 9) == learning_rate(options, 10) == 1.0
    assert learning_rate(options, 55) == pytest.approx(0.5)
    assert learning_rate(options, 99) < 1e-3
    assert learning_rate(Training(steps=100, lr=1.0, warmup=10, decay="constant"), 99) == 1.0


def test_warm_up_takes_at_most_a_fifth_of_the_run() -> None:
    assert learning_rate(Training(steps=50, lr=1.0, warmup=1000), 9) == 1.0


def test_about_ten_intervals() -> None:
    assert Training(steps=5000).interval == 500
    assert Training(steps=3).interval == 1
    assert Training(steps=5000, every=70).interval == 70
