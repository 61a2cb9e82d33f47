"""Fresh identifiers of the look of those seen, without keeping any of them.

The k-th identifier is a pure function of k: any number of chunks holds different ones. None was in the training part,
because whole numbers go on after the largest, and texts begin as no text seen does (a random uuid is new all the same).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

Pattern = dict[str, Any]

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_DIGITS, _UPPER, _LOWER = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
_ALPHABETS = [_DIGITS, _DIGITS + "abcdef", _DIGITS + "ABCDEF", _LOWER, _UPPER, _LOWER + _UPPER, _DIGITS + _LOWER,
              _DIGITS + _UPPER, _DIGITS + _LOWER + _UPPER]  # fmt: skip
_READ, _LONGEST = 10_000, 64  # how many texts, and how much of each, the look is taken from


def learn(values: pd.Series) -> Pattern:
    """What `make` needs, from the identifiers (n,) of the training part: whole numbers or texts, none missing."""
    if not len(values):
        return {"look": "number", "next": 0}
    if pd.api.types.is_numeric_dtype(values.dtype) or isinstance(values.iloc[0], (int, float)):
        return {"look": "number", "next": int(values.max()) + 1}
    values = values.astype(object).astype(str)
    if values.str.fullmatch(_UUID).all():
        return {"look": "uuid", "upper": bool((values == values.str.upper()).all())}
    return _counter(values) or _template(values)


def make(pattern: Pattern, first: int, n: int) -> np.ndarray:
    """(n,) the identifiers with the running numbers first, first + 1, ...: int64, or texts as objects."""
    k = np.arange(first, first + n, dtype=np.int64)
    if pattern["look"] == "number":
        return k + pattern["next"]
    if pattern["look"] == "uuid":
        return _uuids(k, pattern["upper"])
    if pattern["look"] == "counter":
        number = pd.Series(k + pattern["next"]).astype(str).str.zfill(pattern["width"])
        return (pattern["before"] + number + pattern["after"]).to_numpy(object)
    return _filled(k, pattern)


def hashed(k: np.ndarray, stream: int) -> np.ndarray:
    """(n,) random-looking uint64, different for different k (splitmix64, Steele et al. 2014)."""
    state = k.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64((stream + 1) * 0xD1B54A32D192ED03 % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _uuids(k: np.ndarray, upper: bool) -> np.ndarray:
    """Version 4; a bijection of k in each half but for the six bits that are fixed."""
    high = hashed(k, 0) & np.uint64(0xFFFFFFFFFFFF0FFF) | np.uint64(0x4000)
    low = hashed(k, 1) & np.uint64(0x3FFFFFFFFFFFFFFF) | np.uint64(0x8000000000000000)
    digits = np.stack([high, low], 1).byteswap().view(np.uint8)
    letters = np.frombuffer(b"0123456789ABCDEF" if upper else b"0123456789abcdef", np.uint8)
    text = np.stack([letters[digits >> 4], letters[digits & 15]], 2).reshape(len(k), 32)
    text = np.insert(text, [8, 12, 16, 20], ord("-"), axis=1)
    return np.ascontiguousarray(text).view("S36").ravel().astype("U36").astype(object)


def _counter(values: pd.Series) -> Pattern | None:
    """Equal texts around one number, such as ABC-001."""
    turned = values.str[::-1]
    before = _shared(values.min(), values.max()).rstrip(_DIGITS)
    after = _shared(turned.min(), turned.max()).rstrip(_DIGITS)[::-1]
    if values.str.len().min() <= len(before) + len(after):
        return None
    number = values.str.slice(len(before), -len(after) or None)
    if not number.str.fullmatch("[0-9]{1,18}").all():
        return None
    return {
        "look": "counter", "before": before, "after": after, "next": int(number.astype(np.int64).max()) + 1,
        "width": int(number.str.len().min()) if number.str.startswith("0").any() else 1,
    }  # fmt: skip


def _shared(low: str, high: str) -> str:
    """What the lowest and the highest of some texts, and so all of them, begin with."""
    differing = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return low[: next(differing, len(low))]


def _template(values: pd.Series) -> Pattern:
    """An alphabet for each place of texts of the commonest length, and a beginning that no text has."""
    lengths = values.str.len()
    length = int(lengths.mode().iloc[0])
    alike = values[lengths == length].iloc[:_READ].str.slice(0, _LONGEST)
    letters = np.array(alike.tolist(), dtype=f"U{max(alike.str.len().max(), 1)}")
    places = letters.view("U1").reshape(len(letters), -1)
    alphabets = [_alphabet(np.unique(places[:, i]), places[0, i]) for i in range(places.shape[1])]
    return {"look": "template", **_beginning(values, alphabets)}


def _alphabet(seen: np.ndarray, first: str) -> str:
    """The smallest alphabet that holds the characters seen at a place; one fixed character where none does."""
    if len(seen) == 1:
        return str(seen[0])
    fitting = (alphabet for alphabet in _ALPHABETS if set(seen.tolist()) <= set(alphabet))
    return next(fitting, first or "x")


def _beginning(values: pd.Series, alphabets: list[str]) -> Pattern:
    """The shortest beginning with room enough that some is unused, and the alphabets of the places behind it."""
    room, cut = 1, 0
    while cut < len(alphabets) and room < 8 * len(values):
        room, cut = room * len(alphabets[cut]), cut + 1
    tried = ["".join(alphabets[i][int(hashed(np.array([t]), i)[0] % len(alphabets[i]))] for i in range(cut))
             for t in range(64)]  # fmt: skip
    used = set(values.str.slice(0, cut)) & set(tried)
    free = [text for text in tried if text not in used]
    if free:
        return {"begin": free[0], "places": alphabets[cut:]}
    longest = int(values.str.len().max())
    return {"begin": tried[0].ljust(longest, "x"), "places": [_DIGITS]}  # longer than any seen


def _filled(k: np.ndarray, pattern: Pattern) -> np.ndarray:
    """The beginning, then k scattered over the places behind it, and, once these are used up, a number more."""
    room, used = 1, []
    for place in pattern["places"]:
        used.append(room * len(place) <= 2**31)
        room *= len(place) if used[-1] else 1
    step = next(s for s in range(int(room * 0.618) | 1, 2 * room + 2, 2) if np.gcd(s, room) == 1)
    scattered = (k % room).astype(np.uint64) * np.uint64(step) % np.uint64(room)
    text = pd.Series(pattern["begin"], index=range(len(k)), dtype=object)
    for i, (place, counts) in enumerate(zip(pattern["places"], used, strict=True)):
        letters, size = np.array(list(place), dtype=object), np.uint64(len(place))
        text = text + letters[(scattered if counts else hashed(k, i)) % size]
        scattered = scattered // size if counts else scattered
    more = k // room
    return np.where(more > 0, text + "-" + pd.Series(more).astype(str).astype(object), text).astype(object)
