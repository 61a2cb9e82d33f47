"""diffusionkit: diffusion models for images, time series, tables and molecules on one core."""

__version__ = "0.1.0"
