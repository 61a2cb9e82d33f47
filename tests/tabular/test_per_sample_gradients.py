"""Gradients of single rows, which private training needs, exist and add up to that of the batch."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad, vmap

from diffusionkit.core import Categorical, Diffusion, Gaussian, Product
from diffusionkit.tabular.backbones.mlp import ResidualMLP
from diffusionkit.tabular.backbones.tabddpm import TabDDPM
from diffusionkit.tabular.backbones.transformer import ColumnTransformer

DATA = {
    "numbers": 2,
    "sizes": [3, 4],
    "owners": {"num": [0, 1], "cat": [2, 3]},
    "positions": [-1.0] * 3 + [0.1, 0.4, 0.6, 0.9],
    "shares": [1 / 3] * 3 + [0.25] * 4,
}
NETWORKS = {
    "mlp": lambda: ResidualMLP(**DATA, width=16, depth=2),
    "transformer": lambda: ColumnTransformer(**DATA, width=16, depth=2, heads=2),
    "tabddpm": lambda: TabDDPM(2, [3, 4], DATA["owners"], layers=[16, 16], width=8),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradients_of_single_rows_add_up(name):
    torch.manual_seed(0)
    process = Product({"num": Gaussian(predict="v"), "cat": Categorical([3, 4], "absorbing", even=True)})
    diffusion = Diffusion(NETWORKS[name](), process)
    for parameter in diffusion.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x0 = {"num": torch.randn(8, 2), "cat": torch.randint(0, 3, (8, 2))}
    t = torch.rand(8) * 0.8 + 0.1
    x_t, noise = process.diffuse(x0, t)

    def loss(parameters, *row):
        x0, x_t, noise, t = (
            {k: v[None] for k, v in part.items()} if isinstance(part, dict) else part[None] for part in row
        )
        output = functional_call(diffusion, parameters, (x_t, t))
        return process.loss(output, x0, x_t, noise, t).sum()

    parameters = dict(diffusion.named_parameters())
    single = vmap(grad(loss), in_dims=(None, 0, 0, 0, 0))(parameters, x0, x_t, noise, t)
    process.loss(diffusion(x_t, t), x0, x_t, noise, t).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in parameters.values())
    for key, parameter in parameters.items():
        if parameter.grad is not None:
            torch.testing.assert_close(single[key].sum(0), parameter.grad, atol=1e-5, rtol=1e-4)
