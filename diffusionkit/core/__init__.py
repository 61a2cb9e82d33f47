"""Diffusion and nothing else: schedules, processes, objectives, samplers, guidance, likelihood. Needs torch alone."""

from diffusionkit.core.diffusion import Diffusion
from diffusionkit.core.guidance import ClassifierFree, GradientGuidance, Guided, Threshold, class_log_prob, guided
from diffusionkit.core.inverse import LowPass, Operator, Posterior, adjoint, composed, masked, redraw
from diffusionkit.core.likelihood import Bound, bound, log_likelihood
from diffusionkit.core.objectives import (
    P2,
    VLB,
    EDMWeighting,
    MinSNR,
    NoisyClassifier,
    Objective,
    SigmoidWeighting,
    Simple,
)
from diffusionkit.core.processes import Categorical, Gaussian, Process, Product, Rotation, Torus
from diffusionkit.core.rows import Rows, center
from diffusionkit.core.samplers import DDIM, DDPM, Sampler, encode, slerp
from diffusionkit.core.schedules import (
    EDM,
    VE,
    VP,
    Cosine,
    Linear,
    LinearVariance,
    Polynomial,
    RectifiedFlow,
    Schedule,
    Shifted,
    Sigmoid,
)
from diffusionkit.core.solvers import DPMSolver, Heun, UniPC
from diffusionkit.core.state import Batch, State

REGISTRY: dict[type, dict[str, type]] = {
    Schedule: {
        "linear": Linear,
        "cosine": Cosine,
        "sigmoid": Sigmoid,
        "vp": VP,
        "polynomial": Polynomial,
        "ve": VE,
        "edm": EDM,
        "flow": RectifiedFlow,
        "linear_variance": LinearVariance,
        "shifted": Shifted,
    },
    Process: {
        "gaussian": Gaussian,
        "categorical": Categorical,
        "torus": Torus,
        "rotation": Rotation,
        "product": Product,
    },
    Objective: {
        "simple": Simple,
        "vlb": VLB,
        "min_snr": MinSNR,
        "p2": P2,
        "edm": EDMWeighting,
        "sigmoid": SigmoidWeighting,
        "noisy_classifier": NoisyClassifier,
    },
    Sampler: {"ddpm": DDPM, "ddim": DDIM, "heun": Heun, "dpmpp": DPMSolver, "unipc": UniPC},
}
"""What a recipe's names stand for."""

__all__ = [
    "DDIM",
    "DDPM",
    "EDM",
    "P2",
    "REGISTRY",
    "VE",
    "VLB",
    "VP",
    "Batch",
    "Bound",
    "Categorical",
    "ClassifierFree",
    "Cosine",
    "DPMSolver",
    "Diffusion",
    "EDMWeighting",
    "Gaussian",
    "GradientGuidance",
    "Guided",
    "Heun",
    "Linear",
    "LinearVariance",
    "LowPass",
    "MinSNR",
    "NoisyClassifier",
    "Objective",
    "Operator",
    "Polynomial",
    "Posterior",
    "Process",
    "Product",
    "RectifiedFlow",
    "Rotation",
    "Rows",
    "Sampler",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "SigmoidWeighting",
    "Simple",
    "State",
    "Threshold",
    "Torus",
    "UniPC",
    "adjoint",
    "bound",
    "center",
    "class_log_prob",
    "composed",
    "encode",
    "guided",
    "log_likelihood",
    "masked",
    "redraw",
    "slerp",
]
