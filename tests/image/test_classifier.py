from __future__ import annotations

import pytest
import torch

from diffusionkit.image.backbones.classifier import Classifier


def test_logits_depend_on_time_and_pictures_but_not_on_the_condition() -> None:
    torch.manual_seed(0)
    network = Classifier(shape=(1, 9, 12), classes=4, channels=8, multipliers=(1, 2), dropout=0.0)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.2)
    x, t = torch.randn(3, 1, 9, 12, requires_grad=True), torch.rand(3)
    logits = network(x, t)
    assert logits.shape == (3, 4)
    assert torch.equal(logits, network(x, t, {"class": torch.tensor([0, 1, 2])}))
    assert (network(x, t / 2) - logits).abs().max() > 1e-5
    logits.square().sum().backward()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


def test_learns_the_direction_of_stripes() -> None:
    torch.manual_seed(0)
    network = Classifier(shape=(1, 8, 8), classes=2, channels=8, multipliers=(1, 2), attention=(), dropout=0.0)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(40):
        label = torch.randint(2, (32,))
        stripes = torch.arange(8) % 2 * 2.0 - 1
        pattern = torch.where(label[:, None, None, None] == 1, stripes[:, None], stripes[None, :])
        x = pattern + 0.5 * torch.randn(32, 1, 8, 8)
        loss = torch.nn.functional.cross_entropy(network(x, torch.rand(32)), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2


def test_needs_classes() -> None:
    with pytest.raises(ValueError, match="needs data with classes"):
        Classifier(shape=(1, 8, 8))
