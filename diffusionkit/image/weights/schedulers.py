"""The settings of diffusers' schedulers as a process and its sampling, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusionkit.core import Cosine, Gaussian, Linear
from diffusionkit.errors import UserError
from diffusionkit.image.weights.configs import Reader

# The sampler of ours for each; where several go to one, the first stands for it on the way back.
SAMPLERS = {
    "DDPMScheduler": "ddpm", "DDIMScheduler": "ddim", "DPMSolverMultistepScheduler": "dpmpp",
    "UniPCMultistepScheduler": "unipc", "PNDMScheduler": "ddim",
    "HeunDiscreteScheduler": "heun",
}  # fmt: skip
_PREDICT = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_VARIANCE = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "fixed_large_log": "large",
             "learned_range": "learned"}  # fmt: skip
_CLIPS = ("DDPMScheduler", "DDIMScheduler")  # they clip unless told otherwise
DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None,
    "prediction_type": "epsilon", "rescale_betas_zero_snr": False, "clip_sample": False, "clip_sample_range": 1.0,
    "thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0, "variance_type": "fixed_small",
    "use_karras_sigmas": False,
}  # fmt: skip
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")


def complete(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A scheduler's settings with all that are left out.

    Raises:
        UserError: for one, or a setting, that we have nothing for.
    """
    name = config.get("_class_name")
    if name not in SAMPLERS:
        raise UserError(f"{where}: _class_name is {name!r}; supported are {', '.join(SAMPLERS)}")
    found = DEFAULTS | {"clip_sample": name in _CLIPS} | dict(config)
    read = Reader(found, where)
    for key, allowed in (("beta_schedule", _BETAS), ("prediction_type", tuple(_PREDICT)), ("trained_betas", (None,)),
                         ("rescale_betas_zero_snr", (False,))):  # fmt: skip
        if found[key] not in allowed:
            raise read.refuse(key, f"{found[key]!r} is not supported; {' or '.join(map(repr, allowed))} is")
    if name == "DDPMScheduler" and found["variance_type"] not in _VARIANCE:
        raise read.refuse("variance_type", f"{found['variance_type']!r} is not supported; {', '.join(_VARIANCE)} are")
    if read.whole("num_train_timesteps") < 2:
        raise read.refuse("num_train_timesteps", "must be at least 2, not 1")
    return found


def process(config: dict[str, Any], where: str, learned: bool) -> dict[str, Any]:
    """The recipe's section `process`.

    Args:
        config: of `complete`.
        where: the file.
        learned: whether the network says something of the variance, too.
    """
    read, steps, kind = Reader(config, where), config["num_train_timesteps"], config["beta_schedule"]
    predict = _PREDICT[config["prediction_type"]]
    if learned and predict != "eps":
        raise read.refuse("prediction_type", "must be 'epsilon' for a network with twice as many channels out as in")
    schedule: dict[str, Any] = {"name": "cosine", "steps": steps}
    if kind != "squaredcos_cap_v2":
        low, high = (read.number(key) * steps / 1000 for key in ("beta_start", "beta_end"))
        schedule = {"name": "linear", "steps": steps, "beta_min": low, "beta_max": high}
        schedule["power"] = 2.0 if kind == "scaled_linear" else 1.0
    try:
        (Cosine if kind == "squaredcos_cap_v2" else Linear)(**{k: v for k, v in schedule.items() if k != "name"})
    except ValueError as error:
        raise read.refuse("beta_start", str(error)) from error
    return {"name": "gaussian", "schedule": schedule, "predict": "eps+variance" if learned else predict}


def sampling(config: dict[str, Any], where: str, learned: bool) -> dict[str, Any]:
    """The recipe's section `sampling`."""
    name = config["_class_name"]
    sampler, read = SAMPLERS[name], Reader(config, where)
    section: dict[str, Any] = {"sampler": sampler}
    if sampler == "ddpm":
        variance = _VARIANCE[config["variance_type"]]
        section |= {"steps": config["num_train_timesteps"], "variance": variance}
        if variance == "learned" and not learned:
            raise read.refuse(
                "variance_type", f"{config['variance_type']!r} needs a network with twice as many channels out as in"
            )
    elif sampler in ("dpmpp", "unipc"):
        section["order"] = config.get("solver_order", 2)
        if section["order"] not in (1, 2, 3):
            raise read.refuse("solver_order", f"must be 1, 2 or 3, not {section['order']!r}")
    if config["thresholding"]:
        if read.number("dynamic_thresholding_ratio") != 0.995:
            raise read.refuse(
                "dynamic_thresholding_ratio", f"must be 0.995, not {config['dynamic_thresholding_ratio']}"
            )
        section["clip"] = "dynamic" if read.number("sample_max_value") > 1 else 1.0
    elif config["clip_sample"]:
        section["clip"] = read.number("clip_sample_range")
    return section


def written(process: Gaussian, section: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a scheduler for a process and the recipe's section `sampling`.

    Raises:
        UserError: for what the format has no words for.
    """
    schedule, names = process.schedule, {value: key for key, value in _PREDICT.items()} | {"eps+variance": "epsilon"}
    if process.predict not in names:
        raise UserError(f"process.predict: the format knows {', '.join(names)}, not {process.predict}")
    settings: dict[str, Any] = {"num_train_timesteps": schedule.steps, "prediction_type": names[process.predict]}
    if type(schedule) is Linear and schedule.power in (1.0, 2.0):
        scale = 1000 / schedule.steps
        settings |= {"beta_schedule": "linear" if schedule.power == 1 else "scaled_linear"}
        settings |= {"beta_start": schedule.beta_min * scale, "beta_end": schedule.beta_max * scale}
    elif type(schedule) is Cosine and (schedule.s, schedule.beta_clip) == (0.008, 0.999):
        settings["beta_schedule"] = "squaredcos_cap_v2"
    else:
        raise UserError(f"process.schedule: the format knows the published linear and cosine ones, not {schedule!r}")
    sampler = section["sampler"]
    name = next(name for name, one in SAMPLERS.items() if one == sampler)
    settings |= _clipping(section["clip"], name)
    if sampler == "ddpm":
        settings["variance_type"] = next(theirs for theirs, ours in _VARIANCE.items() if ours == section["variance"])
    elif sampler in ("dpmpp", "unipc"):
        settings["solver_order"] = section["order"]
    return {"_class_name": name, **settings, "timestep_spacing": "trailing"}


def _clipping(clip: float | str | None, name: str) -> dict[str, Any]:
    if clip == "dynamic":
        return {"thresholding": True, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1e6} | (
            {"clip_sample": False} if name in _CLIPS else {}
        )
    if clip is None:
        return {"clip_sample": False} if name in _CLIPS else {}
    if name in _CLIPS:
        return {"clip_sample": True, "clip_sample_range": clip}
    if clip == 1.0:
        return {"thresholding": True, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
    raise UserError(f"sampling.clip: {name} has no bound of {clip}; the samplers ddpm and ddim have")


__all__ = ["complete", "process", "sampling", "written"]
