"""Every test starts from the same random state, on one thread: small tensors are slower on several."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
