"""What is asked of the molecules to be drawn: their size, properties, composition, a fragment."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.errors import UserError
from diffusionkit.molecule.chemistry import ELEMENTS, quiet
from diffusionkit.molecule.codec import MoleculeCodec

if TYPE_CHECKING:
    from rdkit import Chem

Range = tuple[float, float]


@dataclass(frozen=True)
class Wanted:
    """Conditions on molecules.

    Args:
        atoms: fewest and most atoms, of those that the model draws.
        where: for each property the range that its value is drawn from.
        formula: (n,) the type of every atom.
        fragment: types (f,) and positions (f, 3) in Å of atoms that every molecule has.
        valid: draw on until so many are valid and of one piece.
        resample: how often each piece of the way is gone for a fragment or a formula (RePaint).
    """

    atoms: tuple[int, int] | None = None
    where: Mapping[str, Range] = field(default_factory=dict)
    formula: Tensor | None = None
    fragment: tuple[Tensor, Tensor] | None = None
    valid: bool = False
    resample: int = 1


def read(
    codec: MoleculeCodec,
    *,
    atoms: int | str | None = None,
    where: Mapping[str, Any] | str | None = None,
    formula: str | None = None,
    fragment: Chem.Mol | str | Path | None = None,
    valid_only: bool = False,
    resample: int = 1,
) -> Wanted:
    """Conditions as a codec understands them; see `MoleculeDomain.condition`.

    Raises:
        UserError: for what the model does not know, or what contradicts itself; one sentence.
    """
    if resample < 1:
        raise UserError(f"resample: at least 1, not {resample}")
    types = None if formula is None else _composition(codec, formula)
    known = None if fragment is None else _fragment(codec, fragment)
    sizes = None if atoms is None else _sizes(codec, atoms)
    if types is not None:
        if sizes is not None:
            raise UserError("atoms: the formula says how many there are; leave out one of the two")
        sizes = (len(types), len(types))
    if known is not None:
        sizes = _around(codec, len(known[0]), sizes)
        if types is not None and (torch.bincount(known[0], minlength=99) > torch.bincount(types, minlength=99)).any():
            raise UserError("formula: holds fewer atoms of an element than the fragment")
    return Wanted(sizes, _properties(codec, where or {}), types, known, valid_only, resample)


# ---- sizes


def _sizes(codec: MoleculeCodec, atoms: int | str) -> tuple[int, int]:
    low, high = _ends("atoms", atoms)
    low, high = (1 if low is None else low), (codec.largest if high is None else high)
    if low != int(low) or high != int(high) or low < 1 or low > high:
        raise UserError(f"atoms: a number of atoms such as 18, or a range such as 15..20, not {atoms}")
    if high > codec.largest:
        warnings.warn(
            f"{int(high)} atoms are more than the {codec.largest} of the largest molecule in training", stacklevel=2
        )
    return int(low), int(high)


def _around(codec: MoleculeCodec, count: int, sizes: tuple[int, int] | None) -> tuple[int, int]:
    """Sizes of molecules that hold a fragment of so many atoms."""
    low, high = sizes or (count + 1, max(codec.largest, 0))
    if high <= count:
        said = f"atoms: {high}" if sizes else f"the largest molecule in training has {high}"
        raise UserError(f"fragment: has {count} atoms, and {said}; name more with atoms")
    return max(low, count + 1), high


# ---- properties


def _properties(codec: MoleculeCodec, where: Mapping[str, Any] | str) -> dict[str, Range]:
    asked = _parsed(where) if isinstance(where, str) else dict(where)
    found = {}
    for name, value in asked.items():
        if name not in codec.properties:
            near = difflib.get_close_matches(str(name), codec.properties, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            told = f"it was trained with {', '.join(codec.properties)}" if codec.properties else "it knows none"
            raise UserError(f"where: this model knows no property {name!r}{hint} ({told}; set data.properties)")
        ends = _ends(f"where: {name}", value)
        seen = codec.seen[:, 1 + codec.properties.index(name)]
        seen = seen[~seen.isnan()]
        least, most = (float(seen.min()), float(seen.max())) if len(seen) else (-np.inf, np.inf)
        low, high = least if ends[0] is None else ends[0], most if ends[1] is None else ends[1]
        if low > high:
            raise UserError(f"where: {name}: the range {low:g}..{high:g} is empty")
        if low > most or high < least:
            raise UserError(
                f"where: {name}: {value} lies outside of what was seen in training, {least:.4g}..{most:.4g}"
            )
        found[name] = (low, high)
    return found


def _parsed(text: str) -> dict[str, str]:
    found = {}
    for piece in filter(None, (p.strip() for p in text.split(";"))):
        name, equals, value = piece.partition("=")
        if not equals or not value.strip():
            raise UserError(f"where: {piece!r} is not of the form 'logP=2.5' or 'logP=2..3'")
        found[name.strip()] = value.strip()
    return found


def _ends(key: str, value: Any) -> tuple[float | None, float | None]:
    """The ends of a number, a text such as 2..3, 2.. or 2, or a pair; None for an open end."""
    try:
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(.*?)\s*\.\.\s*(.*?)\s*", value)
            pair = (match[1] or None, match[2] or None) if match else (value, value)
        elif isinstance(value, (tuple, list)):
            pair = tuple(value)
        else:
            pair = (value, value)
        low, high = (None if end is None else float(end) for end in pair)
    except (TypeError, ValueError):
        raise UserError(f"{key}: must be a number or a range such as 2..3, not {value!r}") from None
    if any(end is not None and not np.isfinite(end) for end in (low, high)):
        raise UserError(f"{key}: must be a number or a range such as 2..3, not {value!r}")
    return low, high


# ---- composition and fragment


def _composition(codec: MoleculeCodec, formula: str) -> Tensor:
    pieces = re.findall(r"([A-Z][a-z]?)(\d*)", str(formula))
    if not pieces or "".join(a + b for a, b in pieces) != str(formula).strip():
        raise UserError(f"formula: {formula!r} is none; write it like C6H5Cl")
    z: list[int] = []
    for symbol, count in pieces:
        if symbol not in ELEMENTS:
            raise UserError(f"formula: {symbol!r} is no element that is known here ({', '.join(ELEMENTS)})")
        z += [ELEMENTS[symbol]] * int(count or 1)
    if not codec.hydrogens and 1 in z:
        raise UserError("formula: this model draws heavy atoms, and hydrogens follow from them; leave H out")
    return codec.codes(np.sort(np.array(z))[::-1].copy())


def _fragment(codec: MoleculeCodec, fragment: Any) -> tuple[Tensor, Tensor]:
    where = "fragment"
    if isinstance(fragment, (str, Path)):
        where = f"fragment: {fragment}"
        fragment = _first(Path(fragment), where)
    if not hasattr(fragment, "GetNumConformers"):
        raise UserError(f"{where}: must be an SDF file or an RDKit molecule, not {type(fragment).__name__}")
    if not fragment.GetNumConformers() or not fragment.GetNumAtoms():
        raise UserError(f"{where}: has no atoms with coordinates")
    z = np.array([atom.GetAtomicNum() for atom in fragment.GetAtoms()])
    pos = fragment.GetConformer().GetPositions()
    kept = np.ones(len(z), bool) if codec.hydrogens else z > 1
    if not kept.any() or not np.isfinite(pos[kept]).all():
        raise UserError(f"{where}: has no heavy atoms with coordinates")
    try:
        return codec.codes(z[kept]), torch.tensor(pos[kept], dtype=torch.float32)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _first(path: Path, where: str) -> Any:
    from rdkit import Chem

    if not path.is_file():
        raise UserError(f"{where}: there is no such file")
    with quiet():
        try:
            mol = next(iter(Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)), None)
        except (OSError, RuntimeError, UnicodeDecodeError):
            mol = None
    if mol is None:
        raise UserError(f"{where}: is no SDF file that can be read")
    return mol
