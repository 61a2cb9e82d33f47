"""Recipes: YAML files that say what to train, read safely and checked against the signatures of what they name.

Importing this module, finding recipes and listing them needs no torch; checking one imports the classes it names.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import yaml

from diffusionkit import schema
from diffusionkit.domain import Domain, get_domain
from diffusionkit.errors import UserError
from diffusionkit.schema import Component, Impossible, Misfit, Parameter, Reader, Typed

# What a section is when a recipe leaves it out; sections without an entry here must be written.
DEFAULTS: dict[str, Any] = {
    "process": {"name": "gaussian"},
    "objective": {"name": "simple"},
    "training": {},
    "trainer": {},
    "sampling": {"sampler": "ddim"},
    "seed": 0,
}
SECTIONS = ("domain", "data", "process", "backbone", "objective", "training", "trainer", "sampling", "seed")
FITTED = ("process", "backbone", "objective")  # they may have arguments that the data decide
_SETTINGS = ("training", "trainer")


@dataclass(frozen=True)
class Sampling:
    """The keys of the section `sampling` that every sampler shares; the others are arguments of the sampler.

    Args:
        guidance: scale of classifier-free guidance; 1 is the plain conditional model, 0 the unconditional one.
        clip: bound on the estimate of clean data in each step; "dynamic" for Imagen's dynamic thresholding.
        batch_size: samples drawn at a time; memory and the draws for a seed depend on it, nothing else does.
    """

    guidance: float = 1.0
    clip: float | Literal["dynamic"] | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")
        if isinstance(self.clip, float) and not self.clip > 0:
            raise ValueError(f"clip must be above 0, not {self.clip:g}")


@dataclass(frozen=True)
class Recipe:
    """One recipe: plain sections, and the objects they describe.

    Use `Recipe.load`, `Recipe.from_run` or `Recipe.of`; all read safely. Errors are `UserError`s that name the file (or
    the command line), the dotted key and what would be right.
    """

    raw: Mapping[str, Any]
    name: str = "recipe"
    source: str = "recipe"
    description: str = ""
    trusted: bool = True
    overridden: frozenset[str] = field(default=frozenset())

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: Mapping[str, str] | None = None) -> Recipe:
        """Reads a recipe by path or by name ('image/digits') and checks all of it; no data are read.

        Args:
            overrides: dotted keys with their values as typed, such as {"training.steps": "2000"}; see `override`.

        Raises:
            UserError: if anything in it is wrong; all that is wrong is in the message.
        """
        recipe = cls.draft(name_or_path).override(overrides or {})
        recipe.check()
        return recipe

    @classmethod
    def draft(cls, name_or_path: str | Path) -> Recipe:
        """Reads a recipe as `load` does, but does not check it."""
        path = find(name_or_path)
        name = _name_of(path)
        shown = str(name_or_path) if Path(str(name_or_path)).suffix in _SUFFIXES else f"recipe {name}"
        text = _text_of(path, shown)
        given, about = _head(text)
        return cls(parse(text, shown), given or name, shown, about)

    @classmethod
    def of(cls, sections: Mapping[str, Any], name: str = "recipe") -> Recipe:
        """A recipe from plain sections, as Python code has them; checked as a file is."""
        recipe = cls(copy.deepcopy(dict(sections)), name, name)
        recipe.check()
        return recipe

    @classmethod
    def from_run(cls, folder: str | Path) -> Recipe:
        """The recipe of a run folder. It may come from anybody, so it reaches no class outside diffusionkit's own.

        Raises:
            UserError: if the folder holds no readable recipe.
        """
        path = Path(folder) / "recipe.yaml"
        if not path.is_file():
            raise UserError(f"{folder} is no run: it has no recipe.yaml; `diffusionkit train` makes runs")
        text = _text_of(path, str(path))
        name, about = _head(text)
        recipe = cls(parse(text, str(path)), name or Path(folder).name, str(path), about, trusted=False)
        recipe.sections  # noqa: B018  # refuses a bad one here
        return recipe

    def override(self, overrides: Mapping[str, str]) -> Recipe:
        """This recipe with values typed on the command line put over its own; not yet checked.

        A key without a section stands for the one argument of this name: `lr` for `training.lr`.

        Raises:
            UserError: if several sections have one.
        """
        whole = {key: text for key, text in overrides.items() if key.partition(".")[0] in SECTIONS}
        recipe = self._over(whole)
        return recipe._over({recipe._whole(key): text for key, text in overrides.items() if key not in whole})

    def named(self, name: str) -> list[str]:
        """The dotted keys of the sections' arguments that have this name."""
        parts = self._read[0]
        found = [f"{part.key}.{name}" for part in parts.values() if isinstance(part, Component) and name in part.schema]
        return list(dict.fromkeys(found))

    def _whole(self, name: str) -> str:
        keys = self.named(name)
        if len(keys) > 1:
            raise UserError(f"--{name}: could be any of {', '.join(f'--{key}' for key in keys)}; write the one meant")
        return keys[0] if keys else name  # one that is unknown is refused with the rest

    def _over(self, overrides: Mapping[str, str]) -> Recipe:
        if not overrides:
            return self
        raw: dict[str, Any] = copy.deepcopy(dict(self.raw))
        for key, text in overrides.items():
            _put(raw, key, Typed(text))
        return Recipe(raw, self.name, self.source, self.description, self.trusted, self.overridden | set(overrides))

    def resample(self, sampler: str | None) -> Recipe:
        """This recipe with another sampler, at its own defaults; guidance, clipping and batch size stay."""
        self._raise(self._read[1])
        old = self._read[0]
        if sampler is None or sampler == old["sampling"].plain["sampler"]:
            return self
        raw = {**self.raw, "sampling": {"sampler": sampler, **old["_sampling"].plain}}
        marked = self.overridden | {"sampling.sampler"}
        return Recipe(raw, self.name, self.source, self.description, self.trusted, marked)

    def sampling_keys(self) -> list[str]:
        """The keys that the section `sampling` may have with its sampler."""
        self._raise(self._read[1])
        parts = self._read[0]
        return [*parts["sampling"].schema, *parts["_sampling"].schema]

    @property
    def sections(self) -> dict[str, Any]:
        """Every section in plain words, with all defaults written out.

        Raises:
            UserError: if a section, key or type is wrong.
        """
        self._raise(self._read[1])
        read = self._read[0]
        said = {n: read[n].plain if isinstance(read[n], Component) else read[n] for n in SECTIONS}
        try:
            known = set(self._known)
        except ValueError:  # such as a data set that is not on this machine
            known = set()
        for name in FITTED:
            said[name] = {key: value for key, value in said[name].items() if key not in {*known, "outputs"}}
        return copy.deepcopy(said)

    @cached_property
    def domain(self) -> Domain:
        """The domain that the recipe names.

        Raises:
            UserError: if it is missing or not installed.
        """
        name = self.raw.get("domain")
        if name is None:
            raise UserError(f"{self.source}: domain: is missing; a recipe starts with a line such as 'domain: image'")
        if not isinstance(name, str):
            raise UserError(f"{self._where('domain')}: domain: must be the name of a domain, not {schema.show(name)}")
        return get_domain(str(name), f"{self._where('domain')}: ")

    def check(self) -> None:
        """Holds every section against the signatures and builds all of it, the backbone without memory; reads no data.

        Raises:
            UserError: with everything that is wrong, a line each.
        """
        self._raise([*self._read[1], *self._impossible()])

    def build(self, section: str, **provided: Any) -> Any:
        """The object of a section: a data set, process, backbone, objective, sampler, `Training`, or the trainer's dict.

        Args:
            section: the section's name.
            provided: arguments that the program gives, such as the shape that the data have; those that the
                constructor does not take are left out.

        Raises:
            UserError: if the constructor refuses its values, or the recipe sets what the data decide.
        """
        self._raise(self._read[1])
        part = self._read[0][section]
        if not isinstance(part, Component):
            return copy.deepcopy(part)
        self._raise(_fit(part, self._reader(), provided))
        return self._made(part, provided)

    def sampling(self) -> Sampling:
        """What the section `sampling` says besides the sampler and its arguments."""
        self._raise(self._read[1])
        return self._made(self._read[0]["_sampling"], {})

    def _made(self, part: Component, provided: Mapping[str, Any]) -> Any:
        try:
            return part.make(**provided)
        except Impossible as error:
            self._raise([(error.key, error.message)])
            raise

    def save(self, path: str | Path) -> None:
        """Writes the recipe with all its defaults; loading that file gives the same recipe."""
        head = "".join(f"# {line}\n" for line in [_NAME + self.name, *self.description.splitlines()])
        body = yaml.safe_dump(self.sections, sort_keys=False, width=110, allow_unicode=True, default_flow_style=None)
        Path(path).write_text(head + body, "utf-8")

    def __getstate__(self) -> dict[str, Any]:
        """What copies need: not what has been read, which they can read again."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    # ---- reading ----

    def _reader(self) -> Reader:
        from diffusionkit.core import REGISTRY

        return Reader(REGISTRY, self.trusted)

    @cached_property
    def _read(self) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """The sections by name, as a `Component` where there is a class, and what is wrong with them."""
        from diffusionkit.core import REGISTRY, Objective, Process, Sampler
        from diffusionkit.training.options import Training

        domain, reader = self.domain, self._reader()
        raw = {name: self._section(name, reader) for name in SECTIONS}
        reader.problems += [
            (str(name), schema.unknown("key", name, SECTIONS)) for name in self.raw if name not in SECTIONS
        ]
        common = schema.parameters(Sampling)
        options = {k: raw["sampling"].pop(k) for k in list(raw["sampling"] or ()) if k in common}
        chosen = {
            "data": (domain.data, "name", ()),
            "process": (REGISTRY[Process], "name", ()),
            "backbone": (domain.backbones, "name", ()),
            "objective": ({**REGISTRY[Objective], **domain.objectives}, "name", ()),
            "sampling": (REGISTRY[Sampler], "sampler", tuple(common)),
        }
        parts: dict[str, Any] = {"domain": domain.name}
        for name, (classes, label, also) in chosen.items():
            if raw[name] is not None:
                parts[name] = reader.component(raw[name], classes, name, label, also)
        parts["training"] = _settings(reader, raw["training"], Training, "training")
        parts["_sampling"] = _settings(reader, options, Sampling, "sampling")
        parts["trainer"] = _trainer(reader, raw["trainer"])
        parts["seed"] = _single(reader, raw["seed"], int, "seed")
        if parts.get("sampling") is not None:
            parts["sampling"].plain.update(parts["_sampling"].plain)
        for name in ("data", "sampling"):
            if parts.get(name) is not None:
                reader.problems += schema.missing(parts[name], reader)
        return parts, reader.problems

    def _section(self, name: str, reader: Reader) -> Any:
        """A section as written, or its default; None (and a problem) where there is nothing to go on with."""
        value = self.raw.get(name)
        if isinstance(value, Typed):
            try:
                value = schema.typed(value)
            except Misfit as problem:
                reader.problems.append((name, str(problem)))
                value = None
        if name in ("domain", "seed"):
            return value if value is not None else DEFAULTS.get(name)
        if value is None:
            if name not in DEFAULTS:
                reader.problems.append((name, "this section is missing"))
                return None
            return dict(DEFAULTS[name])
        label = "sampler" if name == "sampling" else "name"
        if isinstance(value, str) and name not in _SETTINGS:
            return {label: value}
        if not isinstance(value, Mapping):
            reader.problems.append((name, f"must be a mapping of keys and values, not {schema.show(value)}"))
            return None if name not in DEFAULTS else dict(DEFAULTS[name])
        head = {label: DEFAULTS[name][label]} if label in DEFAULTS.get(name, ()) else {}
        return {**head, **value}

    @cached_property
    def _known(self) -> dict[str, Any]:
        """What the data say of the other sections' arguments before they are read (`Domain.sketch`).

        A value of `...` is known by name only.
        """
        return self.domain.sketch(self._read[0]["data"].make())

    def _impossible(self) -> list[tuple[str, str]]:
        """What the constructors refuse, of the sections in which every key and type is right."""
        parts, noted = self._read
        ill = {key.partition(".")[0] for key, _ in noted}
        problems: list[tuple[str, str]] = []
        known: dict[str, Any] = {}
        if "data" not in ill:
            known = _attempt("data", lambda: self._known, problems) or {}
        made = {
            name: self._trial(parts[name], known if name in FITTED else {}, problems)
            for name in ("process", "objective", "training", "sampling", "_sampling")
            if name.strip("_") not in ill
        }
        if getattr(made.get("training"), "steps", 1) == 0 and not self.domain.length(1):
            problems.append(("training.steps", "must be at least 1, not 0"))
        if known and "backbone" not in ill:
            import torch

            with torch.device("meta"):  # tensors without memory
                process = made.get("process")
                outputs = getattr(process, "outputs", 1)
                made["backbone"] = self._trial(parts["backbone"], {**known, "outputs": outputs}, problems)
        for name in ("objective", "sampling"):
            if made.get("process") is not None and made.get(name) is not None:
                _attempt(name, partial(made[name].check, made["process"]), problems)
        made |= {"sampling": made.pop("_sampling", None), "data": parts["data"].make() if known else None}
        return problems + self.domain.check({name: one for name, one in made.items() if one is not None})

    def _trial(self, part: Component, known: Mapping[str, Any], problems: list[tuple[str, str]]) -> Any:
        """The object of the recipe's arguments and those known, or None, mostly for reasons added to `problems`."""
        wrong = _fit(part, self._reader(), known)
        problems += wrong
        if wrong or part.takes(name for name in known if known[name] is ...):
            return None
        return _attempt(part.key, lambda: part.make(**known), problems)

    # ---- messages ----

    def _where(self, key: str) -> str:
        foreign = (
            "." not in key and key not in (*DEFAULTS, "data", "backbone")
        ) or key == "seed"  # '--trainig.steps 3'
        typed = any(
            key == k or key.startswith(f"{k}.") or (foreign and k.startswith(f"{key}.")) for k in self.overridden
        )
        return "command line" if typed else self.source

    def _raise(self, problems: Iterable[tuple[str, str]]) -> None:
        lines = list(dict.fromkeys(f"{self._where(key)}: {key}: {text}" for key, text in problems))
        if lines:
            raise UserError("\n".join(lines))


def _attempt(key: str, action: Callable[[], Any], problems: list[tuple[str, str]]) -> Any:
    """What the action returns, or None where it refuses: then the reason is added to `problems`."""
    try:
        return action()
    except Impossible as error:
        problems.append((error.key, error.message))
    except ValueError as error:
        problems.append((key, str(error)))
    return None


def _fit(part: Component, reader: Reader, provided: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The problems of a component whose further arguments are these."""
    taken = [(f"{part.key}.{n}", "comes from the data, a recipe cannot set it") for n in part.settled(provided)]
    return taken + schema.missing(part, reader, provided)


def _settings(reader: Reader, values: Any, cls: type, key: str) -> Component:
    wanted = schema.parameters(cls)
    # The problems of unknown keys in `sampling` are noted where the sampler is read.
    given = reader.arguments(values or {}, wanted, key)
    return Component(key, cls, given, schema.written(given, wanted, reader.registry), wanted)


def _single(reader: Reader, value: Any, annotation: Any, key: str) -> Any:
    try:
        return reader.read(value, annotation, key).plain
    except Misfit as problem:
        reader.problems.append((key, str(problem)))
        return value


def _trainer(reader: Reader, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of `lightning.Trainer`; Lightning takes seconds to import, so only where there are any."""
    if not values:
        return {}
    from lightning import Trainer

    known = {name: Parameter(Any, p.default) for name, p in _trainer_arguments(Trainer).items()}
    return {name: value.plain for name, value in reader.arguments(values, known, "trainer").items()}


def _trainer_arguments(trainer: Any) -> dict[str, Any]:
    import inspect

    return {n: p for n, p in inspect.signature(trainer.__init__).parameters.items() if n != "self"}


def _put(raw: dict[str, Any], key: str, value: Typed) -> None:
    """Sets a dotted key. What was a bare name on the way ('schedule: cosine') becomes a mapping with that name."""
    *path, last = key.split(".")
    at = raw
    for depth, part in enumerate(path):
        inner = at.get(part)
        if isinstance(inner, str):
            inner = {"sampler" if path[: depth + 1] == ["sampling"] else "name": inner}
        at[part] = dict(inner) if isinstance(inner, Mapping) else {}
        at = at[part]
    at[last] = value


# ---- files ----

_SUFFIXES = (".yaml", ".yml")
_NAME = "recipe: "  # starts the first comment line of a saved recipe


def folder() -> Path:
    """Where the shipped recipes lie: inside the installed package, or `domains/` in a checkout."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "domains"


def listing() -> list[tuple[str, str]]:
    """Every shipped recipe: its name and its first line of description."""
    paths = sorted(path for path in folder().rglob("*.yaml"))
    return [(_name_of(path), (_comment(path.read_text("utf-8")) or [""])[0]) for path in paths]


def find(name_or_path: str | Path) -> Path:
    """The file of a recipe, from a path or from the name of a shipped one ('image/digits').

    Raises:
        UserError: if there is none; the nearest names are in the message.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix in _SUFFIXES and path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        raise UserError(f"there is no file {path}{f'; did you mean {path.parent / near[0]}?' if near else ''}")
    shipped = folder() / f"{name_or_path}.yaml"
    names = [name for name, _ in listing()]
    if str(name_or_path) in names:
        return shipped
    near = _near_recipe(path, names)
    raise UserError(f"there is no recipe {str(name_or_path)!r}{near} (recipes: {', '.join(names)})")


def _near_recipe(path: Path, names: list[str]) -> str:
    wanted = str(path.with_suffix("")).lower()
    ends = {name.rpartition("/")[2]: name for name in names}
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    close = close or [ends[n] for n in difflib.get_close_matches(Path(wanted).name, list(ends), n=1, cutoff=0.6)]
    return f"; did you mean {close[0]!r}?" if close else ""


def _name_of(path: Path) -> str:
    try:
        return path.resolve().relative_to(folder().resolve()).with_suffix("").as_posix()
    except ValueError:
        return path.stem


def _text_of(path: Path, shown: str) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: this is no text file in UTF-8, so it cannot be a recipe") from error
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror})") from error


def _comment(text: str) -> list[str]:
    """The comment lines that a file starts with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return [line for line in lines if line]


def _head(text: str) -> tuple[str, str]:
    """The name that a saved recipe gives itself, else '', and the description, a line as a line."""
    lines = _comment(text)
    if lines and lines[0].startswith(_NAME):
        return lines[0].removeprefix(_NAME), "\n".join(lines[1:])
    return "", "\n".join(lines)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice, of which plain YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in getattr(node, "value", ()):
            if getattr(key, "value", None) in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(text: str, source: str) -> dict[str, Any]:
    """The sections of a recipe's text.

    Raises:
        UserError: if it is not YAML, asks for Python objects, is empty, or holds a key twice; it names the line.
    """
    try:
        found = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{source}: {_yaml_sentence(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: this is not a YAML file that can be read ({str(error).splitlines()[0]})") from error
    if found is None:
        raise UserError(f"{source}: the file is empty; a recipe starts with a line such as 'domain: image'")
    if not isinstance(found, dict):
        raise UserError(
            f"{source}: a recipe is a mapping of sections ({', '.join(SECTIONS)}), not {schema.show(found)}"
        )
    return found


def _yaml_sentence(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "not YAML"
    if "could not determine a constructor for the tag" in problem:
        problem = f"the tag {problem.rpartition('tag ')[2]} is not allowed in a recipe"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


__all__ = ["Recipe", "Sampling", "find", "folder", "listing", "parse"]
