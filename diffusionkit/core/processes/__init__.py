"""One space each, its whole chain in one class."""

from diffusionkit.core.processes.base import Process
from diffusionkit.core.processes.categorical import Categorical
from diffusionkit.core.processes.gaussian import Gaussian
from diffusionkit.core.processes.product import Product
from diffusionkit.core.processes.rotation import Rotation
from diffusionkit.core.processes.torus import Torus, wrap

__all__ = ["Categorical", "Gaussian", "Process", "Product", "Rotation", "Torus", "wrap"]
