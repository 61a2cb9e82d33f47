"""Pictures: networks, data sets and what the commands need. Names are imported with their first use."""

from __future__ import annotations

from diffusionkit.lazy import exports

_HOMES = {
    "UNet": "backbones.unet",
    "DiT": "backbones.dit",
    "Classifier": "backbones.classifier",
    "Autoencoder": "backbones.autoencoder",
    "ImageText": "backbones.clip",
    "Contrastive": "contrastive",
    "Reconstruction": "reconstruction",
    "LatentCodec": "latent",
    "Digits": "data",
    "MNIST": "data",
    "FashionMNIST": "data",
    "CIFAR10": "data",
    "Folder": "data",
    "Emoji": "captions",
    "CaptionedFolder": "captions",
    "save_grid": "grid",
}
__getattr__, __all__ = exports(__name__, _HOMES)
