"""Pictures in, pictures out: what is kept, what follows the measurement, what is refused. The model is exact, and without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from diffusionkit.core import DDIM, DDPM, Cosine, Diffusion, DPMSolver, Gaussian, adjoint
from diffusionkit.errors import UserError
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.editing import edit, inpaint, restore
from diffusionkit.image.operators import blur, coarse, downsample, grey, upsample
from diffusionkit.image.readers import read_picture


class White(Diffusion):
    """The exact denoiser of independent pixels N(0, 0.5^2); `conditions` notes what it is asked with."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 1), Gaussian(Cosine(), "x0"))
        self.conditions: list[object] = []

    def forward(self, x_t, t, cond=None, rows=None, given=None):
        self.conditions.append(cond)
        alpha, sigma = (float(v) for v in self.process.schedule(t))
        return 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * x_t


class Halved(PixelCodec):
    """A stand-in for a codec of latents: states of half the size."""

    def like(self, n: int) -> tuple[int, ...]:
        return (n, self.shape[0], self.shape[1] // 2, self.shape[2] // 2)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(super().encode(pictures), 2)

    def render(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2)


CODECS = [PixelCodec((3, 8, 12)), PixelCodec((1, 8, 8), levels=17), PixelCodec((1, 9, 7)), Halved((3, 8, 12))]


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


def picture(path: Path, shape: tuple[int, int, int], seed: int = 0) -> Path:
    values = np.random.default_rng(seed).integers(0, 256, (*shape[1:], shape[0]), np.uint8)
    return save(path, values[..., 0] if shape[0] == 1 else values)


def mask(path: Path, shape: tuple[int, int, int]) -> Path:
    values = np.zeros(shape[1:], np.uint8)
    values[3:6, 2:5] = 255
    return save(path, values)


def loaded(path: Path) -> torch.Tensor:
    values = np.asarray(Image.open(path))
    return torch.from_numpy(np.atleast_3d(values).transpose(2, 0, 1).copy())


# ---- operators


@pytest.mark.parametrize("operator", [downsample(2), downsample(4), blur(0.7), blur(30.0), grey, coarse(4, (3, 8, 12))])
def test_operators_have_their_adjoint_and_keep_even_pictures_even(operator):
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    y = torch.randn_like(operator(x))
    assert torch.allclose((operator(x) * y).flatten(1).sum(1), (x * adjoint(operator, x)(y)).flatten(1).sum(1))
    even = operator(torch.full_like(x, 0.3))
    assert torch.allclose(even, torch.full_like(even, 0.3))


def test_upsampling_is_the_right_inverse_and_the_scaled_adjoint_of_downsampling():
    x, y = torch.randn(2, 3, 8, 12, dtype=torch.float64), torch.randn(2, 3, 2, 3, dtype=torch.float64)
    assert torch.allclose(downsample(4)(upsample(4)(y)), y)
    assert torch.allclose(adjoint(downsample(4), x)(y) * 16, upsample(4)(y))


def test_blurring_spreads_a_point_with_its_width():
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1
    place = torch.arange(41, dtype=torch.float64) - 20
    profile = blur(2.5)(point)[0, 0].sum(0)
    assert float(profile.sum()) == pytest.approx(1) and float((profile * place**2).sum()) == pytest.approx(6.25)


def test_the_coarse_part_is_a_projection_that_the_means_decide():
    low = coarse(4, (3, 8, 12))
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    assert torch.allclose(low(low(x)), low(x)) and torch.allclose(downsample(4)(low(x)), downsample(4)(x))
    other = x + torch.randn_like(x)
    other = other - upsample(4)(downsample(4)(other - x))
    assert torch.allclose(low(other), low(x)) and not torch.allclose(other, x)
    ramp = torch.arange(12, dtype=torch.float64).expand(1, 1, 8, 12)
    jumps = low(ramp)[0, 0, 4].diff().abs()
    assert float(jumps.max()) < 2.1  # smooth, where repeated means would jump by 4


@pytest.mark.parametrize(
    "make", [lambda: downsample(1), lambda: blur(0.0), lambda: coarse(3, (1, 8, 8)), lambda: coarse(1, (1, 8, 8))]
)
def test_impossible_operators_are_refused(make):
    with pytest.raises(ValueError):
        make()


# ---- inpainting


@pytest.mark.parametrize("codec", CODECS, ids=lambda c: f"{type(c).__name__}{c.shape}")
@pytest.mark.parametrize("method", ["repaint", "replace", "posterior"])
def test_known_pixels_are_bit_equal_in_the_file_and_the_hole_is_filled(codec, method, tmp_path):
    """Also where the codec has 17 levels, on which few of the picture's values lie, and where states are not pixels."""
    if codec.shape == (1, 9, 7) and method == "posterior":
        pytest.skip("one odd size is enough")
    paths = picture(tmp_path / "a.png", codec.shape), mask(tmp_path / "m.png", codec.shape)
    task = inpaint(codec, *paths, method=method, resample=2)
    drawn = task.draw(White(), DDIM(4), 3)
    for out, n in ((f"{tmp_path}/many/", 3), (str(tmp_path / "one.png"), 1)):
        with task.writer(out, n) as writer:
            writer.add(drawn[:n])
    before, hole = loaded(paths[0]), loaded(paths[1])[0] > 0
    for i, path in enumerate([*sorted((tmp_path / "many").iterdir()), tmp_path / "one.png"]):
        after = loaded(path)
        assert torch.equal(after[:, ~hole], before[:, ~hole])
        assert torch.equal(after[:, hole], drawn[i % 3][:, hole]) and not torch.equal(after[:, hole], before[:, hole])


@pytest.mark.parametrize("method", ["repaint", "posterior"])
def test_the_hole_has_the_law_of_the_data(method, tmp_path):
    """Pixels that know nothing of one another: the hole is N(0, 0.5^2), as rounded to levels."""
    codec = PixelCodec((1, 8, 8))
    task = inpaint(
        codec,
        picture(tmp_path / "a.png", codec.shape),
        mask(tmp_path / "m.png", codec.shape),
        method=method,
        resample=3,
    )
    x = codec.encode(task.draw(White(), DDIM(60), 400)[:, :, 3:6, 2:5])
    assert float(x.mean()) == pytest.approx(0, abs=0.05)
    assert float(x.std()) == pytest.approx(0.5 * 0.95, rel=0.08)  # the tails beyond -1 and 1 are cut


def test_conditions_and_thresholds_reach_the_model(tmp_path):
    codec, model = PixelCodec((1, 8, 8)), White()
    task = inpaint(codec, picture(tmp_path / "a.png", codec.shape), mask(tmp_path / "m.png", codec.shape))
    seen = []
    cond = {"class": torch.zeros(2)}
    task.draw(model, DDIM(3), 2, 0.1, cond=cond, watch=lambda t, x, estimate: seen.append(float(estimate.abs().max())))
    assert all(c is cond for c in model.conditions) and max(seen) < 0.1001


# ---- drafts and references


def test_little_strength_returns_the_picture_and_full_strength_forgets_it(tmp_path):
    codec = PixelCodec((3, 8, 12))
    path = picture(tmp_path / "a.png", codec.shape)
    near = edit(codec, path, strength=1e-5).draw(White(), DDIM(5), 2)
    assert (near.int() - loaded(path).int()).abs().max() <= 1
    free = codec.encode(edit(codec, path, strength=1.0).draw(White(), DDIM(50), 200))
    assert float(free.mean(0).abs().mean()) < 0.06


@pytest.mark.parametrize("sampler", [DDPM(20), DPMSolver(10)], ids=repr)
def test_the_coarse_part_of_a_reference_is_held(sampler, tmp_path):
    codec = PixelCodec((3, 8, 12))
    path, other = picture(tmp_path / "a.png", codec.shape), picture(tmp_path / "b.png", codec.shape, seed=1)
    dim = save(tmp_path / "c.png", (np.asarray(Image.open(other)) // 4 + 96).astype(np.uint8))
    drawn = edit(codec, path, coarse=4, reference=str(dim), until=0.0).draw(White(), sampler, 3)
    means = downsample(4)(drawn.float()), downsample(4)(loaded(dim)[None].float())
    assert float((means[0] - means[1]).abs().mean()) < 3  # of 255: where noise meets black or white, it is cut
    assert float((drawn[0].float() - drawn[1].float()).abs().mean()) > 10


# ---- restoring


@pytest.mark.parametrize("method", ["moments", "pigdm"])
@pytest.mark.parametrize("codec", [CODECS[0], CODECS[3]], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("operator", ["downsample:4", "grey", "blur:1,downsample:2", "mask:MASK", "identity"])
def test_what_is_restored_looks_like_what_was_seen(method, codec, operator, tmp_path):
    """Flat pictures near the data: what the results make of the operator is what was seen, nearly."""
    name, _, factor = operator.rpartition(",")[2].partition(":")
    k = int(factor) if name == "downsample" else 1
    shape = (1 if name == "grey" else 3, 8 // k, 12 // k)
    seen = save(tmp_path / "y.png", np.full((*shape[1:], shape[0]), 150, np.uint8).squeeze(2 if shape[0] == 1 else ()))
    hole = mask(tmp_path / "m.png", codec.shape)
    task = restore(codec, seen, operator=operator.replace("MASK", str(hole)), method=method)
    drawn = task.draw(White(), DDIM(30), 5).float()
    steps = {"grey": grey, "downsample": lambda x: downsample(k)(x), "mask": lambda x: x[..., 6:]}
    again = steps.get(name, lambda x: x)(blur(1.0)(drawn) if operator.startswith("blur") else drawn)
    assert float((again - 150).abs().mean()) < (12 if method == "pigdm" else 4)
    assert float((drawn[0] - drawn[1]).abs().mean()) > 2 or name == "identity"


def test_noise_leaves_room_and_degrading_does_the_operator_first(tmp_path):
    codec = PixelCodec((1, 8, 8))
    path = picture(tmp_path / "a.png", codec.shape)
    errors = []
    for noise in (0.0, 60.0):
        task = restore(codec, path, operator="downsample:2", degrade=True, noise=noise)
        drawn = downsample(2)(task.draw(White(), DDIM(30), 50).float())
        errors.append(float((drawn - downsample(2)(loaded(path)[None].float())).abs().mean()))
    assert errors[0] < 6 < errors[1]
    same = [restore(codec, path, operator="identity", degrade=True, noise=20, method=m) for m in ("dps", "dps")]
    torch.manual_seed(0)
    first = same[0].draw(White(), DDIM(5), 2)
    torch.manual_seed(0)
    assert torch.equal(first, same[1].draw(White(), DDIM(5), 2))


# ---- refusals


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: inpaint(PixelCodec((1, 8, 8)), d / "none.png", d / "m.png"), "none.png: there is no such file"),
        (lambda d: inpaint(PixelCodec((1, 8, 8)), d / "a.png", d / "wide.png"), "wide.png: is of 8x12.*must be of 8x8"),
        (lambda d: inpaint(PixelCodec((1, 8, 12)), d / "a.png", d / "m.png"), "a.png: is of 8x8.*must be of 8x12"),
        (lambda d: inpaint(PixelCodec((3, 8, 8)), d / "a.png", d / "m.png"), "a.png: is grey, it must be in colour"),
        (lambda d: inpaint(PixelCodec((1, 8, 8)), d / "c.png", d / "m.png"), "c.png: is in colour, it must be grey"),
        (lambda d: inpaint(PixelCodec((1, 8, 8)), d / "broken.png", d / "m.png"), "broken.png: is no picture"),
        (lambda d: inpaint(PixelCodec((1, 8, 8)), d / "moving.gif", d / "m.png", fit=True), "moving.gif: .*animation"),
        (lambda d: inpaint(PixelCodec((1, 8, 8)), d / "a.png", d / "black.png"), "no white pixel"),
        (lambda d: inpaint(PixelCodec((1, 4, 4)), d / "a.png", d / "wide.png", fit=True), "8x12 pixels, the picture of 8x8"),
        (lambda d: inpaint(PixelCodec((1, 8, 8)), d / "a.png", d / "m.png", jump=0), "--jump"),
        (lambda d: edit(PixelCodec((1, 8, 8)), d / "a.png", strength=0.0), "--strength"),
        (lambda d: edit(PixelCodec((1, 8, 8)), d / "a.png", coarse=3), "--coarse: a factor of 3 does not divide"),
        (lambda d: edit(PixelCodec((1, 8, 8)), d / "a.png", until=1.0, coarse=2), "--until"),
        (lambda d: edit(PixelCodec((1, 8, 8)), d / "a.png", reference="b.png"), "--reference: needs --coarse"),
        (lambda d: restore(PixelCodec((1, 8, 8)), d / "a.png", operator="sharpen"), "--operator: must be blur:WIDTH"),
        (lambda d: restore(PixelCodec((1, 8, 8)), d / "a.png", operator="grey:2"), "--operator: must be blur:WIDTH"),
        (lambda d: restore(PixelCodec((1, 8, 8)), d / "a.png", operator="blur:x"), "blur:x needs a number"),
        (lambda d: restore(PixelCodec((1, 8, 8)), d / "a.png", operator="downsample:1.5"), "needs a whole number"),
        (lambda d: restore(PixelCodec((1, 8, 8)), d / "a.png", operator="downsample:3"), "does not divide.*8x8"),
        (lambda d: restore(PixelCodec((1, 8, 8)), d / "a.png", operator="downsample:2"), "is of 8x8.*must be of 4x4"),
        (lambda d: restore(PixelCodec((1, 8, 8)), d / "a.png", operator="identity", noise=-1.0), "--noise"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(call, words, tmp_path):
    picture(tmp_path / "a.png", (1, 8, 8))
    picture(tmp_path / "c.png", (3, 8, 8))
    mask(tmp_path / "m.png", (1, 8, 8))
    mask(tmp_path / "wide.png", (1, 8, 12))
    save(tmp_path / "black.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "broken.png").write_bytes((tmp_path / "c.png").read_bytes()[:60])
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=words) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_pictures_are_fitted_where_asked(tmp_path):
    path = picture(tmp_path / "a.png", (3, 20, 30))
    codec = PixelCodec((1, 8, 8))
    assert read_picture(path, codec.shape, fit=True).shape == (1, 8, 8)
    values = np.zeros((20, 30), np.uint8)
    values[:, 15:] = 255
    task = inpaint(codec, path, save(tmp_path / "m.png", values), fit=True, resample=2)
    drawn = task.draw(White(), DDIM(3), 2)
    assert torch.equal(drawn[0][:, :, :4], drawn[1][:, :, :4]) and not torch.equal(drawn[0], drawn[1])
