"""From plain values (YAML, command line) to objects: the signature of a constructor is the schema of its keys.

A parameter's annotation says what its key may hold, its default what is meant when the key is absent. An annotation that
is a key of the registry (`Schedule`, `Process`, ...) asks for a component: a name, or a mapping of `name` and arguments.
Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
import reprlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from diffusionkit.errors import UserError

REQUIRED = inspect.Parameter.empty
_UNKNOWN = object()  # a default that plain YAML cannot say


class Misfit(ValueError):
    """A value does not fit its annotation; the message goes on after the key: 'must be an integer, not ...'."""


class Typed(str):
    """A value as typed on the command line: text where text is asked for, read as YAML elsewhere."""


@dataclass(frozen=True)
class Parameter:
    """One argument of a constructor: its resolved annotation and its default, or `REQUIRED`."""

    annotation: Any
    default: Any


def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The named arguments of a class or function; behind `**kwargs` of a constructor stand those of its base classes."""
    found: dict[str, Parameter] = {}
    for call in _signatures(function):
        hints = get_type_hints(call)
        open_end = False
        for name, parameter in inspect.signature(call).parameters.items():
            open_end |= parameter.kind is parameter.VAR_KEYWORD
            if name == "self" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            found.setdefault(name, Parameter(hints.get(name, Any), parameter.default))
        if not open_end:
            break
    return found


def _signatures(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    if not inspect.isclass(function):
        return [function]
    return [vars(cls)["__init__"] for cls in function.__mro__ if cls is not object and "__init__" in vars(cls)]


@dataclass
class Value:
    """A value that fits: how YAML says it, and how the object is made of it."""

    plain: Any
    make: Callable[..., Any]
    inside: tuple[Component, ...] = ()


@dataclass
class Component:
    """A class chosen by name with the arguments given for it."""

    key: str
    cls: Callable[..., Any]
    given: dict[str, Value]
    plain: dict[str, Any]
    schema: dict[str, Parameter] = field(default_factory=dict)

    def settled(self, provided: Iterable[str]) -> list[str]:
        """Names in `provided` that the recipe sets to something else than the default."""
        return [n for n in provided if n in self.given and self.given[n].plain != plain(self.schema[n].default)]

    def missing(self, provided: Iterable[str] = ()) -> list[tuple[str, Parameter]]:
        """Keys and parameters, here and in the components within, that neither the recipe nor `provided` gives."""
        known = {*self.given, *provided}
        here = [(f"{self.key}.{n}", p) for n, p in self.schema.items() if p.default is REQUIRED and n not in known]
        return here + [m for value in self.given.values() for part in value.inside for m in part.missing(provided)]

    def takes(self, names: Iterable[str]) -> bool:
        """Whether the constructor, or that of a component within, accepts one of these arguments."""
        names = list(names)
        inside = (part for value in self.given.values() for part in value.inside)
        return any(name in self.schema for name in names) or any(part.takes(names) for part in inside)

    def make(self, **provided: Any) -> Any:
        """The object, from the recipe's arguments and those of `provided` that the constructor accepts.

        Raises:
            Impossible: if the constructor refuses a value.
        """
        kwargs = {name: value.make(**provided) for name, value in self.given.items()}
        kwargs |= {name: value for name, value in provided.items() if name in self.schema}
        try:
            return self.cls(**kwargs)
        except UserError:
            raise
        except ValueError as error:
            raise Impossible(self.key, str(error), self.schema) from error


class Impossible(ValueError):
    """A constructor refused its arguments; `key` is the dotted key as exactly as its message lets us say."""

    def __init__(self, key: str, message: str, names: Iterable[str]) -> None:
        first, _, rest = message.partition(" ")
        within = first in names and rest
        self.key, self.message = (f"{key}.{first}", rest) if within else (key, message)
        super().__init__(f"{self.key}: {self.message}")


class Reader:
    """Reads values by annotation and collects what is wrong with them in `problems`: pairs of dotted key and sentence.

    Args:
        registry: for each kind of component (a base class) its classes by name.
        trusted: whether a dotted path may name any class that can be imported.
    """

    def __init__(self, registry: Mapping[type, Mapping[str, Any]], trusted: bool) -> None:
        self.registry = registry
        self.trusted = trusted
        self.problems: list[tuple[str, str]] = []

    def arguments(
        self, values: Mapping[str, Any], schema: Mapping[str, Parameter], key: str, also: Iterable[str] = ()
    ) -> dict[str, Value]:
        """The values by name; problems are noted under `key`. Names in `also` are right there, but read elsewhere."""
        found = {}
        for name, value in values.items():
            where = f"{key}.{name}" if key else str(name)
            if name not in schema:
                self.problems.append((where, unknown("key", name, [*also, *schema])))
                continue
            try:
                found[name] = self.read(value, schema[name].annotation, where)
            except Misfit as problem:
                self.problems.append((where, str(problem)))
        return found

    def component(
        self, value: Any, classes: Mapping[str, Any], key: str, label: str = "name", also: Iterable[str] = ()
    ) -> Component | None:
        """A class of `classes` with its arguments, from a name or a mapping; None if there is no such class."""
        values = dict(value) if isinstance(value, Mapping) else {label: value}
        where = f"{key}.{label}" if isinstance(value, Mapping) else key
        name = values.pop(label, None)
        try:
            cls = self._named(name, classes)
            schema = _schema(cls, name, own=name not in classes)
        except Misfit as problem:
            self.problems.append((where, str(problem)))
            return None
        given = self.arguments(values, schema, key, also=(label, *also))
        return Component(key, cls, given, {label: str(name), **written(given, schema, self.registry)}, schema)

    def read(self, value: Any, annotation: Any, key: str) -> Value:
        """The value as its annotation asks.

        Raises:
            Misfit: if it is of the wrong type.
        """
        if annotation in self.registry:
            return self._part(value, annotation, key)
        origin, inner = get_origin(annotation), get_args(annotation)
        if origin in (Union, types.UnionType):
            return self._union(value, annotation, inner, key)
        if isinstance(value, Typed) and annotation not in (str, Path) and origin is not Literal:
            value = typed(value, many=origin in (list, tuple, Sequence))
        if origin is not None and inspect.isclass(origin) and issubclass(origin, Mapping):
            return self._mapping(value, annotation, inner, key)
        if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, Iterable)):
            return self._sequence(value, annotation, origin, inner, key)
        return _leaf(value, annotation)

    def _part(self, value: Any, base: type, key: str) -> Value:
        if isinstance(value, Typed):
            value = typed(value)
        if not isinstance(value, (str, Mapping)):
            raise Misfit(f"must be {describe(base, self.registry)}, not {show(value)}")
        component = self.component(value, self.registry[base], key)
        if component is None:
            return Value(value, lambda **provided: None)
        if not (inspect.isclass(component.cls) and issubclass(component.cls, base)):
            raise Misfit(f"{component.plain['name']} is not a {base.__name__}")
        return Value(component.plain, component.make, (component,))

    def _union(self, value: Any, annotation: Any, members: tuple[Any, ...], key: str) -> Value:
        bare = typed(value) if isinstance(value, Typed) else value
        if types.NoneType in members and (bare is None or (str not in members and str(bare).lower() == "none")):
            return Value(None, lambda **provided: None)
        parts = [m for m in members if m in self.registry]
        others = sorted(
            (m for m in members if m not in self.registry and m is not types.NoneType), key=lambda m: m is str
        )
        names = {name for part in parts for name in self.registry[part]}
        if parts and (
            isinstance(bare, Mapping) or not others or (isinstance(bare, str) and (bare in names or "." in bare))
        ):
            return self._part(bare, parts[0], key)
        for member in others:
            noted = len(self.problems)
            try:
                return self.read(value, member, key)
            except Misfit as problem:
                del self.problems[noted:]
                if len(others) == 1 and not parts and types.NoneType not in members:
                    raise problem
        raise Misfit(f"must be {describe(annotation, self.registry)}, not {show(bare)}")

    def _sequence(self, value: Any, annotation: Any, origin: Any, inner: tuple[Any, ...], key: str) -> Value:
        fixed = origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis)
        if not isinstance(value, (list, tuple)) or (fixed and len(value) != len(inner)):
            raise Misfit(f"must be {describe(annotation, self.registry)}, not {show(value)}")
        try:
            items = [self.read(v, inner[i] if fixed else inner[0], f"{key}.{i}") for i, v in enumerate(value)]
        except Misfit as problem:
            text = f"must be {describe(annotation, self.registry)}, not {show(value)}"
            raise Misfit(text) from problem
        kind = tuple if origin is tuple else list
        within = tuple(part for item in items for part in item.inside)
        return Value([i.plain for i in items], lambda **provided: kind(i.make(**provided) for i in items), within)

    def _mapping(self, value: Any, annotation: Any, inner: tuple[Any, ...], key: str) -> Value:
        if not isinstance(value, Mapping):
            raise Misfit(f"must be {describe(annotation, self.registry)}, not {show(value)}")
        items: dict[str, Value] = {}
        for name, item in value.items():
            try:
                items[str(name)] = self.read(item, inner[1], f"{key}.{name}")
            except Misfit as problem:
                self.problems.append((f"{key}.{name}", str(problem)))
        said = {name: item.plain for name, item in items.items()}
        within = tuple(part for item in items.values() for part in item.inside)
        return Value(said, lambda **provided: {n: item.make(**provided) for n, item in items.items()}, within)

    def _named(self, name: Any, classes: Mapping[str, Any]) -> Any:
        if name is None:
            raise Misfit(f"is missing; it must be one of {', '.join(sorted(classes))}")
        if not isinstance(name, str):
            raise Misfit(f"must be one of {', '.join(sorted(classes))}, not {show(name)}")
        if name in classes:
            found = classes[name]
            return _imported(found) if isinstance(found, str) else found
        if "." not in name:
            raise Misfit(unknown("name", name, classes))
        if not self.trusted:
            raise Misfit(
                f"{name!r} is code of your own, which loading a run never executes; give the recipe by --recipe"
            )
        if os.getcwd() not in sys.path:  # a console script does not look for modules where it is started
            sys.path.append(os.getcwd())
        return _imported(str(name))


def _schema(cls: Any, name: str, own: bool) -> dict[str, Parameter]:
    try:
        return parameters(cls)
    except (TypeError, ValueError, NameError, KeyError) as error:
        if not own:
            raise
        raise Misfit(f"{name!r} is no class whose arguments can be read ({error})") from error


def typed(text: str, many: bool = False) -> Any:
    """The value of text typed on the command line; with `many`, '1,2' and '1' are lists, too.

    Raises:
        Misfit: if it is not YAML.
    """
    try:
        value = yaml.safe_load(text)
        return yaml.safe_load(f"[{text}]") if many and isinstance(value, (str, int, float)) else value
    except (yaml.YAMLError, ValueError) as error:
        raise Misfit(f"cannot read {show(str(text))}") from error


def _leaf(value: Any, annotation: Any) -> Value:
    made = _converted(value, annotation)
    plain_value = str(made) if isinstance(made, Path) else made
    return Value(plain_value, lambda **provided: made)


def _converted(value: Any, annotation: Any) -> Any:
    if annotation is Any or annotation is object:
        return value
    if get_origin(annotation) is Literal:
        for option in get_args(annotation):
            if value == option or (not isinstance(value, bool) and str(value) == str(option)):
                return option
    elif annotation in (str, Path):
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return Path(str(value)) if annotation is Path else str(value)
    elif annotation is bool:
        if isinstance(value, bool):
            return value
    elif annotation in (int, float):
        number = _number(value)
        if number is not None and (annotation is float or (math.isfinite(number) and number == int(number))):
            return annotation(number)
    elif annotation is types.NoneType:
        if value is None:
            return None
    elif annotation in (list, dict, tuple) and isinstance(value, (list, tuple, dict)):
        return annotation(value)
    raise Misfit(f"must be {describe(annotation)}, not {show(value)}")


def _number(value: Any) -> int | float | None:
    """YAML 1.1 reads `1e-4` as text; so text that is a number counts as one. Not a number: None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = value if isinstance(value, int) else float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def written(
    given: Mapping[str, Value], schema: Mapping[str, Parameter], registry: Mapping[type, Any]
) -> dict[str, Any]:
    """All arguments in plain words: those given, and the defaults of the others where YAML can say them."""
    out = {}
    for name, parameter in schema.items():
        value = given[name].plain if name in given else plain(parameter.default, registry)
        if value is not _UNKNOWN:
            out[name] = value
    return out


def plain(value: Any, registry: Mapping[type, Mapping[str, Any]] | None = None) -> Any:
    """A default as YAML says it, or a mark that YAML cannot."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        items = [plain(item, registry) for item in value]
        return _UNKNOWN if _UNKNOWN in items else items
    if isinstance(value, dict):
        pairs = {key: plain(item, registry) for key, item in value.items()}
        return _UNKNOWN if _UNKNOWN in pairs.values() else pairs
    for classes in (registry or {}).values():
        for name, cls in classes.items():
            if type(value) is cls:
                stated = {p: plain(getattr(value, p, REQUIRED), registry) for p in parameters(cls)}
                return {"name": name, **{p: v for p, v in stated.items() if v is not _UNKNOWN}}
    return _UNKNOWN


def _imported(path: str) -> Any:
    """The class at 'module:Class' or 'module.Class'."""
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found = import_module(module)
    except ImportError as error:
        raise Misfit(f"cannot import {path!r}: {error}") from error
    if not hasattr(found, name):
        public = [n for n in vars(found) if not n.startswith("_")]
        raise Misfit(f"{module!r} has no {name!r}{nearest(name, public)}")
    return getattr(found, name)


def missing(component: Component, reader: Reader, provided: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The problems of required arguments that nobody gives."""
    absent = component.missing(provided)
    return [(key, f"is missing; it must be {describe(p.annotation, reader.registry)}") for key, p in absent]


def unknown(what: str, name: Any, right: Iterable[str]) -> str:
    """'unknown key; did you mean 'channels'? (keys: channels, dropout)'."""
    names = sorted(dict.fromkeys(right))
    listed = f"{what}s: {', '.join(names)}" if names else f"there are no {what}s here"
    said = f"unknown {what}" if what == "key" else f"unknown {what} {show(name)}"
    return f"{said}{nearest(name, names)} ({listed})"


def nearest(name: Any, names: Iterable[str]) -> str:
    """'; did you mean 'channels'?', or nothing where no name comes near."""
    plain_names = {_plain(n): n for n in names}
    close = difflib.get_close_matches(_plain(name), list(plain_names), n=1, cutoff=0.5)
    return f"; did you mean {plain_names[close[0]]!r}?" if close else ""


def _plain(name: Any) -> str:
    return str(name).lower().replace("-", "_")


_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    types.NoneType: "null",
}
_PLURAL = {int: "integers", float: "numbers", str: "texts", bool: "true or false", Path: "paths"}


def describe(annotation: Any, registry: Mapping[type, Mapping[str, Any]] | None = None) -> str:
    """An annotation in words, such as 'an integer or null'."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if registry and annotation in registry:
        return f"one of {', '.join(sorted(registry[annotation]))}"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member, registry) for member in inner)
    if origin is Literal:
        return " or ".join(repr(option) for option in inner)
    if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        kinds = dict.fromkeys(_PLURAL.get(i, describe(i, registry)) for i in inner)
        return f"a list of {len(inner)} {' and '.join(kinds)}"
    if origin is not None and inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"a mapping whose values are each {describe(inner[1], registry)}"
    if origin is not None and inner:
        return f"a list of {_PLURAL.get(inner[0], describe(inner[0], registry))}"
    return getattr(annotation, "__name__", str(annotation))


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60


def show(value: Any) -> str:
    """A value as a message shows it: short, and in the words of YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _Brief().repr(str(value) if isinstance(value, Typed) else value)
