from __future__ import annotations

import math

import pytest
import torch

from diffusionkit.image.metrics import frechet, independent_bits, near_copies, nearest_distances, precision_recall


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(n: int, mean: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """n points whose sample mean and covariance are exactly `mean` and factor factor^T."""
    z = normal(n, len(mean))
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T.cov().reshape(len(mean), -1))).T
    return mean + z @ factor.T


# ---- Fréchet distance


def test_frechet_of_gaussians_in_closed_form() -> None:
    a = exact(400, torch.tensor([1.0, -2.0]).double(), torch.diag(torch.tensor([3.0, 0.5]).double()))
    b = exact(300, torch.tensor([0.0, 1.0]).double(), torch.diag(torch.tensor([1.0, 2.0]).double()))
    # |m1 - m2|^2 + sum (s1 - s2)^2, where the covariances commute
    assert frechet(a, b) == pytest.approx(10 + 4 + 2.25, rel=1e-9)


def test_frechet_of_covariances_that_do_not_commute() -> None:
    zero = torch.zeros(2).double()
    first, second = torch.tensor([[1.0, 0], [1, 1]]).double(), torch.diag(torch.tensor([2.0, 1.0]).double())
    c1, c2 = first @ first.T, second @ second.T
    root = ((c1 @ c2).trace() + 2 * torch.linalg.det(c1 @ c2).sqrt()).sqrt()  # trace of a 2x2 root
    wanted = float(c1.trace() + c2.trace() - 2 * root)
    assert frechet(exact(50, zero, first), exact(60, zero, second)) == pytest.approx(wanted, rel=1e-9)


def test_frechet_knows_equals_and_does_not_depend_on_the_axes() -> None:
    a, b = normal(80, 6) * torch.arange(1, 7), normal(90, 6, 1) + 0.5
    turn = torch.linalg.qr(normal(6, 6, 2)).Q
    assert frechet(a, a[torch.randperm(80)]) == pytest.approx(0, abs=1e-6)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)
    assert frechet(a @ turn + 1e4, b @ turn + 1e4) == pytest.approx(frechet(a, b), rel=1e-6)
    assert frechet(a.float(), b.float()) == pytest.approx(frechet(a, b), rel=1e-4)


# ---- precision and recall


def test_precision_and_recall_of_identical_and_of_disjoint_sets() -> None:
    a = normal(60, 4)
    assert precision_recall(a, a) == (1, 1)
    assert precision_recall(a, a + 100) == (0, 0)


def test_a_collapsed_model_is_precise_and_recalls_nothing() -> None:
    real = torch.arange(100.0)[:, None]
    fake = 50 + 1e-3 * normal(40, 1)
    precision, recall = precision_recall(real, fake)
    assert precision == 1
    assert recall <= 0.01
    assert precision_recall(fake, real) == (recall, precision)


def test_precision_by_hand() -> None:
    # k = 1: radii 1, 1, 7; balls [-1, 1], [0, 2], [1, 15]: of the fakes -0.5, 1.5, 15.5 two are inside.
    real, fake = torch.tensor([[0.0], [1], [8]]), torch.tensor([[-0.5], [1.5], [15.5]])
    # radii 2, 2, 14; balls [-2.5, 1.5], [-0.5, 3.5], [1.5, 29.5] hold all real ones
    assert precision_recall(real, fake, k=1) == (pytest.approx(2 / 3), 1)


def test_order_and_scale_do_not_matter() -> None:
    a, b = normal(300, 3), normal(280, 3, 1) * 1.3
    found = precision_recall(a, b)
    assert 0 < found[0] < 1
    assert precision_recall(a.flip(0) * 7, b[torch.randperm(280)] * 7) == found


# ---- nearest neighbours


def test_copies_are_at_distance_zero_even_as_bytes() -> None:
    data = torch.randint(0, 256, (5000, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([4999, 0, 2500, 17])
    done: list[int] = []
    distances, index = nearest_distances(data[chosen], data, 2, done.append)
    assert index[:, 0].tolist() == chosen.tolist()
    assert distances[:, 0].tolist() == [0, 0, 0, 0]
    assert (distances[:, 1] > 0).all()
    assert near_copies(distances).all()
    assert sum(done) == 5000


def test_nearest_distances_agree_with_brute_force() -> None:
    a, b = normal(33, 5), normal(70, 5, 1) + 1000  # far from the origin
    b[:35] -= 1000
    wanted, order = torch.cdist(a, b).sort(1)
    distances, index = nearest_distances(a, b, 3)
    torch.testing.assert_close(distances, wanted[:, :3], rtol=1e-6, atol=1e-9)
    assert torch.equal(index, order[:, :3])
    assert nearest_distances(a[:0], b, 3)[0].shape == (0, 3)


def test_a_near_copy_is_nearer_to_one_than_to_any_other() -> None:
    assert near_copies(torch.tensor([[0.0, 1.0], [0.3, 1.0], [0.4, 1.0], [0.0, 0.0]])).tolist() == [1, 1, 0, 1]


# ---- bits of independent pixels


def test_independent_bits_by_hand() -> None:
    train = torch.tensor([[[[0, 3]]], [[[0, 2]]]], dtype=torch.uint8)
    test = torch.tensor([[[[0, 1]]]], dtype=torch.uint8)
    # (2 + 1) / (2 + 4) and (0 + 1) / (2 + 4)
    assert independent_bits(train, test, 4) == pytest.approx((math.log2(2) + math.log2(6)) / 2)


def test_independent_bits_of_noise_are_those_of_its_levels() -> None:
    noise = torch.randint(0, 16, (9000, 1, 2, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert independent_bits(noise[:8000], noise[8000:], 16) == pytest.approx(4, abs=0.02)


# ---- refusals


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda a: frechet(a, a[:1]), "at least 2 samples"),
        (lambda a: frechet(a, a[:, :2]), "must be"),
        (lambda a: frechet(a, a * torch.nan), "finite"),
        (lambda a: precision_recall(a[:3], a), "at least 4 samples"),
        (lambda a: precision_recall(a, a, k=0), "k must be at least 1"),
        (lambda a: nearest_distances(a, a[:, :2]), "one shape"),
        (lambda a: nearest_distances(a, a[:1], 2), "1 references"),
    ],
)
def test_refusals(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(normal(10, 3))
