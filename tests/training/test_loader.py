"""Batches are pure functions of their number, and an epoch is a permutation."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from diffusionkit.core.state import Batch
from diffusionkit.training.loader import Loader, Tensors, as_dataset, mix


class Noisy:
    """A data set whose augmentation draws from the generator."""

    def __len__(self) -> int:
        return 10

    def batch(self, indices: torch.Tensor, generator: torch.Generator | None = None) -> Batch:
        return Batch(indices + torch.rand(len(indices), generator=generator))


def test_an_epoch_is_a_permutation_of_the_data() -> None:
    loader = Loader(Tensors(torch.arange(10)), batch_size=4, seed=3)
    seen = torch.cat([batch.x for batch in islice(loader, 5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


@pytest.mark.parametrize("world", [2, 3])
def test_devices_share_an_epoch(world: int) -> None:
    loaders = [Loader(Tensors(torch.arange(12)), batch_size=2, rank=rank, world=world) for rank in range(world)]
    seen = torch.cat([loader.indices(k) for k in range(12 // (2 * world)) for loader in loaders])
    assert sorted(seen.tolist()) == list(range(12))


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_later_start_gives_the_same_batches(ahead: int) -> None:
    whole = list(islice(Loader(Noisy(), batch_size=3, seed=1), 9))
    rest = list(islice(Loader(Noisy(), batch_size=3, seed=1, start=5, ahead=ahead), 4))
    assert all(torch.equal(a.x, b.x) for a, b in zip(whole[5:], rest, strict=True))


def test_global_random_numbers_are_neither_used_nor_moved() -> None:
    before = torch.get_rng_state()
    first = Loader(Noisy(), batch_size=3).batch(7)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(first.x, Loader(Noisy(), batch_size=3).batch(7).x)


def test_a_batch_may_be_larger_than_the_data() -> None:
    seen = Loader(Tensors(torch.arange(3)), batch_size=7).indices(0)
    assert sorted(seen[:3].tolist()) == sorted(seen[3:6].tolist()) == [0, 1, 2]


def test_states_and_conditions_are_indexed_alike() -> None:
    x = {"numbers": torch.arange(6.0), "codes": torch.arange(6)}
    batch = as_dataset((x, {"class": torch.arange(6)})).batch(torch.tensor([4, 1]))
    assert batch.x["codes"].tolist() == batch.cond["class"].tolist() == [4, 1]
    assert batch.rows is None


def test_seeds_differ() -> None:
    assert len({mix(a, b, c) for a in range(10) for b in range(10) for c in range(10)}) == 1000
    assert all(0 <= mix(a, -1) < 2**63 for a in range(100))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        Loader(Tensors(torch.zeros(0, 2)), 4)
    with pytest.raises(ValueError, match="of one length"):
        Tensors(torch.zeros(4, 2), {"class": torch.zeros(3)})
