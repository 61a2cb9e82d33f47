"""Drawing from a seed leaves no trace."""

import pytest
import torch

from diffusionkit.core.seeds import drawing

CPU = torch.device("cpu")


def test_the_same_seed_draws_the_same_and_others_something_else():
    def drawn(seed):
        with drawing(seed, CPU):
            return torch.randn(4)

    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))


@pytest.mark.parametrize("fails", [False, True])
def test_numbers_go_on_as_if_nothing_had_been_drawn(fails):
    torch.manual_seed(0)
    wanted = torch.randn(6)
    torch.manual_seed(0)
    first = torch.randn(3)
    try:
        with drawing(7, CPU):
            torch.randn(5)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.cat([first, torch.randn(3)]), wanted)
