"""What super-resolution is told: a smaller picture, and how much noise has been put on it (Ho et al. 2021; Saharia et al. 2022).

A network learns what large pictures may belong to a small one. Noise on the small ones of training, of a level that it is told
of, keeps it from relying on details that a small picture from another model, or from a camera, does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusionkit.image.resize import fitted, reduce

FILE = "examples.safetensors"
_EXAMPLES = 64


@dataclass
class Smaller:
    """The smaller pictures that a model is shown.

    Args:
        factor: how much smaller they are, either way.
        noised: the largest standard deviation of the noise on them in training, in levels of 255.
        examples: some that were held out, uint8 (N, C, h, w), which are enlarged where nobody brings others. With K classes the
            i-th is of class i modulo K.
    """

    factor: int
    noised: float = 0.0
    examples: Tensor | None = None

    def show(
        self, small: Tensor, size: tuple[int, int], noise: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The condition of small pictures.

        Args:
            small: (B, C, h, w) in [-1, 1].
            size: height and width of the states.
            noise: (B,) standard deviation of the noise to put on them, in levels of 255.
            generator: of the noise.

        Returns:
            "low" (B, C', *size), and the noise's standard deviation "low_noise" (B,) in units of the states.
        """
        std = noise / 127.5
        if noise.any():
            drawn = torch.randn(small.shape, generator=generator)
            small = small + std[:, None, None, None].to(small) * drawn.to(small)
        return {"low": fitted(small, size), "low_noise": std.to(small)}

    def chosen(self, indices: Tensor, labels: Tensor | None, classes: int, fixed: bool) -> Tensor:
        """The examples of samples with these running numbers (B,) and, among `classes`, labels; `fixed` if all have one label."""
        assert self.examples is not None
        if labels is None:
            return self.examples[indices % len(self.examples)]
        turn = indices if fixed else indices // classes
        return self.examples[turn % (len(self.examples) // classes) * classes + labels]

    def save(self, folder: Path) -> None:
        """Writes the examples, if there are any."""
        if self.examples is not None:
            from safetensors.torch import save

            (Path(folder) / FILE).write_bytes(save({"examples": self.examples.contiguous()}))

    @classmethod
    def read(cls, content: dict[str, float], folder: Path, shape: tuple[int, int, int]) -> Smaller:
        """What was saved for pictures of this shape.

        Raises:
            ValueError: if the examples are damaged.
        """
        path, factor = Path(folder) / FILE, int(content["factor"])
        if not path.is_file():
            return cls(factor, float(content["noised"]))
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                examples = file.get_tensor("examples")
        except SafetensorError as error:
            raise ValueError(f"{FILE} cannot be read ({error})") from error
        wanted = (shape[0], shape[1] // factor, shape[2] // factor)
        if examples.dtype != torch.uint8 or tuple(examples.shape[1:]) != wanted or not len(examples):
            raise ValueError(f"{FILE} must hold bytes of {wanted}, not {examples.dtype} of {tuple(examples.shape[1:])}")
        return cls(factor, float(content["noised"]), examples)


def shrunk(pictures: Tensor, factor: int, levels: int = 256) -> Tensor:
    """uint8 (N, C, H, W) with values below `levels` -> the same, smaller by a factor."""
    if factor == 1:
        return pictures
    parts = [reduce(part.float(), factor).round_().clamp_(0, levels - 1) for part in pictures.split(1024)]
    return torch.cat([part.to(torch.uint8) for part in parts])


def examples(pictures: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Which of these pictures (N,) are to be examples: about 64, of each class in turn."""
    if labels is None:
        return torch.arange(min(_EXAMPLES, len(pictures)))
    rounds = max(1, _EXAMPLES // classes)
    found = [(labels == k).nonzero()[:, 0] for k in range(classes)]
    found = [own if len(own) else torch.zeros(1, dtype=torch.long) for own in found]  # a class may have none
    return torch.stack([own[torch.arange(rounds) % len(own)] for own in found], 1).flatten()


__all__ = ["Smaller", "examples", "shrunk"]
