"""Image-text models: their loss, what they learn, how they steer and judge."""

from __future__ import annotations

import math

import pytest
import torch

from diffusionkit.core import DDIM, Cosine, Diffusion, Gaussian, GradientGuidance
from diffusionkit.errors import UserError
from diffusionkit.image.backbones.clip import ImageText
from diffusionkit.image.backbones.text import END, START
from diffusionkit.image.contrastive import Contrastive, contrast
from diffusionkit.image.retrieval import accuracy
from diffusionkit.recipe import Recipe


def small(**more: object) -> ImageText:
    arguments = {"shape": (1, 8, 8), "channels": 8, "multipliers": (1, 2), "attention": (), "dropout": 0.0, "width": 8}
    return ImageText(**arguments, vocabulary=20, text_length=6, text_width=16, text_depth=1, **more)


def texts(numbers: torch.Tensor) -> dict[str, torch.Tensor]:
    """A text of one word each."""
    return {"text": torch.stack([torch.full_like(numbers, START), 3 + numbers, torch.full_like(numbers, END)], 1)}


def test_the_loss_has_its_known_values() -> None:
    assert contrast(torch.zeros(5, 5)).tolist() == pytest.approx([math.log(5)] * 5)
    assert contrast(100 * torch.eye(4)).max() < 1e-6
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-2))]
    columns = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(-3))]
    assert contrast(logits).tolist() == pytest.approx([(r + c) / 2 for r, c in zip(rows, columns, strict=True)])


def test_any_of_equal_captions_is_right() -> None:
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    logits = 100 * same.float()
    assert contrast(logits, same).tolist() == pytest.approx([math.log(2), math.log(2), 0.0], abs=1e-5)
    assert contrast(torch.randn(3, 3) + logits, same)[2] < 1e-5


def test_similarities_are_cosines_and_padding_changes_nothing() -> None:
    network, x = small(), torch.randn(3, 1, 8, 8)
    cond = texts(torch.arange(3))
    longer = {"text": torch.nn.functional.pad(cond["text"], (0, 3))}
    logits = network(x, torch.rand(3), cond)
    assert logits.shape == (3, 3) and (logits.abs() <= network.scale + 1e-4).all()
    assert torch.allclose(network.words(cond), network.words(longer), atol=1e-6)
    assert torch.allclose(network.words(cond).norm(dim=1), torch.ones(3))


def test_it_learns_which_word_goes_with_which_picture_and_steers() -> None:
    """Words 0 and 1 are dark and bright pictures: the gradient of "bright" makes samples brighter, that of "dark" darker."""
    process = Gaussian(Cosine(), predict="v")
    clip = Diffusion(small(), process, Contrastive())
    optimiser = torch.optim.Adam(clip.parameters(), 5e-3)
    for _ in range(30):
        label = torch.randint(2, (16,))
        x0 = (2.0 * label - 1)[:, None, None, None] * 0.7 + 0.1 * torch.randn(16, 1, 8, 8)
        loss = clip.loss(x0, texts(label)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    clip.eval()

    class Zero(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, cond: object = None) -> torch.Tensor:
            return torch.zeros_like(x)

    found, log_prob = [], clip.objective.log_prob(clip)
    for word in (0, 1):
        wanted = texts(torch.full((4,), word))
        guided = GradientGuidance(
            Diffusion(Zero(), process), lambda x, t, _, wanted=wanted: log_prob(x, t, wanted), 20.0
        )
        torch.manual_seed(0)
        found.append(float(DDIM(10)(guided, like=(4, 1, 8, 8)).mean()))
    assert found[0] < found[1] - 0.1


def test_retrieval_of_a_perfect_of_a_wrong_and_of_a_random_model() -> None:
    own = torch.arange(400)
    assert accuracy(torch.eye(400), own) == 1.0
    assert accuracy(-torch.eye(400), own) == 0.0
    assert accuracy(torch.zeros(400, 400), own) == pytest.approx(0.01)
    random = torch.rand(400, 400, generator=torch.Generator().manual_seed(1))
    assert accuracy(random, own, 10) == pytest.approx(0.1, abs=0.05)
    half = torch.eye(400) * (own < 200)
    assert accuracy(half, own, 4) == pytest.approx(0.5 + 0.5 / 4)
    with pytest.raises(ValueError, match="there are 3"):
        accuracy(torch.eye(3), torch.arange(3))


def test_the_time_counts_and_latest_bounds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network, times = small(), []
    diffusion = Diffusion(network, Gaussian(Cosine()), Contrastive(latest=0.2))
    original = network.picture
    monkeypatch.setattr(network, "picture", lambda x, t: times.append(t) or original(x, t))
    diffusion.loss(torch.randn(50, 1, 8, 8), texts(torch.arange(50) % 9))
    assert 0.15 < times[0].max() <= 0.2 and times[0].min() < 0.05


def test_refusals() -> None:
    with pytest.raises(ValueError, match="these data have none"):
        ImageText(shape=(1, 8, 8))
    with pytest.raises(ValueError, match="latest is a time"):
        Contrastive(latest=0)
    with pytest.raises(ValueError, match="trains the backbone clip"):
        Diffusion(torch.nn.Identity(), Gaussian(Cosine()), Contrastive()).loss(
            torch.zeros(2, 1, 8, 8), texts(torch.arange(2))
        )


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("image/emoji_clip", {"objective.name": "simple"}),
        ("image/emoji_text", {"objective": "contrastive"}),
    ],
)
def test_the_objective_and_the_backbone_go_together(recipe: str, changes: dict[str, str]) -> None:
    with pytest.raises(
        UserError, match=r"objective\.name: must be 'contrastive' for the backbone clip, and for no other"
    ):
        Recipe.load(recipe, changes)


def test_data_without_captions_have_nothing_to_compare() -> None:
    with pytest.raises(UserError, match="backbone: compares pictures with their captions, and these data have none"):
        Recipe.load("image/emoji_clip", {"data.labels": "false"})
