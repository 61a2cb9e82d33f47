"""Targets: what is encoded comes back exactly, and the frame of a window knows nothing but its own past."""

from __future__ import annotations

import itertools

import pytest
import torch

from diffusionkit.timeseries.targets import Center, Scale, Target, Transform, filled

L, H, D = 20, 9, 3
LAGS = (0, 1, 4)


def values(seed: int = 0, holes: float = 0.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    y = 5 + torch.rand(4, L + H, D, generator=rng, dtype=torch.float64) * torch.tensor([1.0, 100.0, 1e-3])
    return torch.where(torch.rand(y.shape, generator=rng, dtype=torch.float64) < holes, torch.nan, y)


def usual(target: Target, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    z = target.forward(y)
    mean = z.flatten(0, 1).nanmean(0)
    return mean, (z - mean).flatten(0, 1).square().nanmean(0).sqrt()


def choices():
    return itertools.product(Transform.__args__, LAGS, Center.__args__, Scale.__args__)


@pytest.mark.parametrize(("transform", "lag", "center", "scale"), list(choices()))
def test_targets_come_back_as_values(transform, lag, center, scale):
    target = Target(transform, lag, center, scale)
    y = values()
    z = target.forward(y)
    frame = target.frame(z[:, :L], *usual(target, y))
    x = target.encode(z[:, L:], frame)
    assert x.shape == (4, H, D) and x.isfinite().all()
    assert torch.allclose(target.back(target.decode(x, frame)), y[:, L:], rtol=1e-9, atol=0)
    again = target.encode(target.decode(x, frame), frame)
    assert torch.allclose(again, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("transform", "lag"), list(itertools.product(Transform.__args__, LAGS)))
def test_missing_values_lose_only_themselves_and_what_is_compared_with_them(transform, lag):
    target = Target(transform, lag)
    y = values(1, holes=0.3)
    z = target.forward(y)
    assert torch.equal(z.isnan(), y.isnan())
    frame = target.frame(z[:, :L], *usual(target, y))
    x = target.encode(z[:, L:], frame)
    lost = y[:, L:].isnan()
    if lag:
        lost = lost | torch.cat([torch.zeros(4, lag, D, dtype=torch.bool), y[:, L:-lag].isnan()], 1)
    assert torch.equal(x.isnan(), lost)
    found = target.back(target.decode(x, frame))
    chain = found.isfinite()
    assert chain.any() and torch.allclose(found[chain], y[:, L:][chain], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("lag", "center", "scale"), list(itertools.product(LAGS, Center.__args__, Scale.__args__)))
def test_a_frame_depends_on_its_own_window_only(lag, center, scale):
    target = Target("none", lag, center, scale)
    y = values(2, holes=0.2)
    usually = usual(target, y)
    alone = [target.frame(y[i : i + 1, :L], *usually) for i in range(4)]
    mates = torch.cat([y[:, :L], torch.zeros(1, L, D), 1e9 * y[:, :L], torch.full((1, L, D), torch.nan)])
    together = target.frame(mates.double(), *usually)
    for i, frame in enumerate(alone):
        assert all(torch.equal(part[i : i + 1], own) for part, own in zip(together, frame, strict=True))


@pytest.mark.parametrize(("lag", "scale"), list(itertools.product(LAGS, Scale.__args__)))
def test_no_scale_is_zero(lag, scale):
    target = Target("none", lag, "mean", scale)
    flat = torch.stack([torch.zeros(L, D), torch.full((L, D), 7.0), torch.full((L, D), torch.nan)]).double()
    frame = target.frame(flat, torch.zeros(D).double(), torch.tensor([1.0, 1e-6, 1e6]).double())
    assert (frame.scale > 0).all() and all(part.isfinite().all() for part in frame)


def test_the_log_of_what_has_none_is_missing():
    y = torch.tensor([-2.0, -1.0, 0.0, 1.0, torch.inf, torch.nan]).double()[None, :, None]
    assert Target("log").forward(y).isfinite().flatten().tolist() == [False, False, False, True, False, False]
    assert Target("log1p").forward(y).isfinite().flatten().tolist() == [False, False, True, True, False, False]


def test_scales_say_what_their_names_say():
    past = torch.tensor([1.0, -3.0, 5.0, -7.0, 100.0]).double()[None, :, None]
    mean, spread = torch.zeros(1).double(), torch.ones(1).double()

    def scale(name: str, **how: object) -> float:
        return float(Target("none", 0, "zero", name, prior=1e-9, **how).frame(past, mean, spread).scale)

    assert scale("mean") == pytest.approx(116 / 5)
    assert scale("rms") == pytest.approx((sum(v * v for v in (1, 3, 5, 7, 100)) / 5) ** 0.5)
    assert scale("std") == pytest.approx(float(past.std(correction=0)))
    assert scale("robust") == pytest.approx(1.4826 * 4)  # median 1, deviations 0 4 4 8 99
    assert scale("series") == 1
    steps = Target("none", 1, scale="rms", prior=1e-9).frame(past, mean, spread).scale
    assert float(steps) == pytest.approx(((16 + 64 + 144 + 107**2) / 4) ** 0.5)
    few = Target("none", 0, "zero", "rms", prior=5).frame(past, mean, 10 * spread).scale
    assert float(few) == pytest.approx(((sum(v * v for v in (1, 3, 5, 7, 100)) + 5 * 100) / 10) ** 0.5)


def test_gaps_are_closed_by_what_was_before_or_came_first():
    nan = torch.nan
    past = torch.tensor([[nan, nan, 2.0, nan, 4.0, nan], [nan] * 6]).double()[..., None]
    found = filled(past, torch.tensor([9.0]).double())[..., 0]
    assert found.tolist() == [[2, 2, 2, 2, 4, 4], [9] * 6]


@pytest.mark.parametrize(
    "wrong", [{"transform": "sqrt"}, {"center": "middle"}, {"scale": "max"}, {"lag": -1}, {"prior": 0}]
)
def test_impossible_targets_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Target(**wrong)
