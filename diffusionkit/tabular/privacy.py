"""What synthetic rows give away about the training rows, beside what they give away about rows that were never seen."""

from __future__ import annotations

import html
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from diffusionkit.errors import UserError
from diffusionkit.tabular import metrics
from diffusionkit.tabular.coded import Coded, coded, features
from diffusionkit.tabular.judges import boosted, ordinal, present, target_of
from diffusionkit.tabular.neighbours import AMONG, Ruler, cap, dcr, nearer
from diffusionkit.tabular.text import aligned, number, percent, records, stages

LEAST = 20  # rows of the holdout
_FAIR = 0.03  # difference from the ideal that nobody need mind


@dataclass(frozen=True)
class PrivacyReport:
    """What `privacy_report` found; print it, or take `table` or `sentence`.

    Attributes:
        table: rows of measure, value, ideal (what a model has that learned no row by heart), error (the standard error of their
            difference, where known) and comment.
        sentence: what a person has to know.
        facts: numbers of rows and the seed.
    """

    table: pd.DataFrame
    sentence: str
    facts: dict[str, Any]

    def __str__(self) -> str:
        return "\n".join([self.sentence, "", aligned(self._shown())])

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.sentence)}</p>{self._shown().to_html(index=False)}"

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can keep it."""
        return {**self.facts, "sentence": self.sentence, "measures": records(self.table)}

    def value(self, measure: str) -> float:
        """The figure of one measure."""
        return float(self.table.set_index("measure")["value"][measure])

    def _shown(self) -> pd.DataFrame:
        shown = self.table.copy().astype(object)
        share = ["copies" in measure for measure in shown["measure"]]
        for name in ("value", "ideal", "error"):
            shown[name] = [(percent if s else number)(v) for s, v in zip(share, self.table[name], strict=True)]
        return shown


def privacy_report(
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    fake: pd.DataFrame,
    *,
    sensitive: Hashable | Sequence[Hashable] | None = None,
    losses: tuple[Any, Any] | None = None,
    seed: int = 0,
    columns: Mapping[Hashable, str] | None = None,
    rows: int | None = None,
    n_jobs: int | None = 1,
    quiet: bool = False,
) -> PrivacyReport:
    """Attacks synthetic rows: whatever goes better for training rows than for rows of the holdout was learned by heart.

    Distance to closest record: L1, numbers divided by their range in `train`, levels one-hot, to equally many rows of `train`
    and of `holdout`. Membership by density (after DOMIAS, van Breugel et al. 2023): half of the holdout is the reference, the
    other half the non-members; a row counts as a member the more, the larger its distance to the nearest reference is beside
    that to the nearest fake row (the ratio of two nearest-neighbour estimates of the density). Attribute inference: an attacker who
    knows all other columns of a row and has the fake rows guesses the sensitive column, by the nearest fake row and by
    gradient boosting; the advantage is how much better that works for training rows than for those of the holdout.

    Args:
        train: rows that the model was fitted on. Best is a fresh 50/50 split, half for fitting, half held out.
        holdout: real rows that it has not seen, of the same kind; at least 20.
        fake: its rows.
        sensitive: label, or list of labels, of columns that an attacker would like to know.
        losses: the model's losses of (train rows, holdout rows), for membership by the loss; any numbers of each.
        seed: of all draws.
        columns: kinds of columns by label; inferred from `train` where not given.
        rows: whose nearest rows are sought, at most; by default 10,000, fewer above 40 columns. They are sought among four times
            as many, exact copies among all.
        n_jobs: threads of the boosting; None takes all.
        quiet: show no progress.

    Raises:
        UserError: if the columns are not the same, there are too few rows, or no such sensitive column.
    """
    names = ("the training table", "the holdout table", "the synthetic table")
    a, b, c = coded(train, holdout, fake, columns=columns, names=names)
    wanted = _sensitive(sensitive, a)
    if len(b) < LEAST:
        raise UserError(f"the holdout table has {len(b)} rows: at least {LEAST} are needed to compare with")
    with stages(3 + len(wanted), quiet) as stage:
        stage("distance to closest record")
        found = _closest(a, b, c, seed, rows)
        stage("exact copies")
        found += _copies(a, b, c)
        stage("membership")
        found += _membership(a, b, c, losses, seed, rows)
        for label in wanted:
            stage(f"attribute {label!r}")
            found += _attribute(a, b, c, label, seed, rows, n_jobs)
    table = pd.DataFrame(found, columns=["measure", "value", "ideal", "error", "comment"])
    facts = {"rows": {"train": len(a), "holdout": len(b), "fake": len(c)}, "seed": seed}
    return PrivacyReport(table, _sentence(found, wanted), facts)


Row = tuple[str, float, float, float, str]


def _sensitive(labels: Any, table: Coded) -> list[Hashable]:
    if labels is None:
        return []
    labels = list(labels) if isinstance(labels, list | tuple | set) and labels not in table.order else [labels]
    for label in labels:
        if label not in table.order:
            raise UserError(
                f"sensitive: {label!r} is not a column of numbers or levels: choose from {list(table.order)}"
            )
    if labels and len(table.order) < 2:
        raise UserError(f"sensitive: there is no column to guess {labels[0]!r} from")
    return labels


def _closest(train: Coded, holdout: Coded, fake: Coded, seed: int, rows: int | None) -> list[Row]:
    to_train, to_holdout = dcr(train, holdout, fake, seed, rows)
    count = min(len(train), len(holdout), AMONG * cap(train, rows))
    error = math.sqrt(0.25 / len(to_train) + 0.25 / count)
    where = f"{len(to_train):,} synthetic rows, {count:,} of train and of holdout each"
    found: list[Row] = [("nearer to train", nearer(to_train, to_holdout), 0.5, error, where)]
    for name, share in (("median distance to train", 0.5), ("5 % quantile of distances", 0.05)):
        to_each = (float(np.quantile(distances, share)) for distances in (to_train, to_holdout))
        found.append((name, *to_each, math.nan, "ideal: that to the holdout"))
    return found


def _copies(train: Coded, holdout: Coded, fake: Coded) -> list[Row]:
    ours, theirs = metrics.exact_copies(train, fake), metrics.exact_copies(train, holdout)
    error = math.sqrt(ours * (1 - ours) / len(fake) + theirs * (1 - theirs) / len(holdout))
    return [
        ("exact copies", ours, theirs, error, f"of any of {len(train):,} training rows; ideal: holdout rows that are")
    ]


def _membership(
    train: Coded, holdout: Coded, fake: Coded, losses: tuple[Any, Any] | None, seed: int, rows: int | None
) -> list[Row]:
    rng = np.random.default_rng(seed)
    most = cap(train, rows)
    halves = [holdout.take(half) for half in np.array_split(rng.permutation(len(holdout)), 2)]
    members, others = train.sample(most // 2, rng), halves[0].sample(most // 2, rng)
    fake, reference = fake.sample(AMONG * most, rng), halves[1].sample(AMONG * most, rng)
    ruler = Ruler(train, "l1")
    scores = [_density_ratio(ruler, table, fake, reference) for table in (members, others)]
    found = [_auc("membership by density, AUC", *scores)]
    if losses is not None:
        given = [np.asarray(part, dtype=float).ravel() for part in losses]
        if len(given) != 2 or not all(len(part) and np.isfinite(part).all() for part in given):
            raise UserError("losses: give finite losses of training rows and of holdout rows, at least one of each")
        found.append(_auc("membership by loss, AUC", -given[0], -given[1]))
    return found


def _density_ratio(ruler: Ruler, table: Coded, fake: Coded, reference: Coded) -> np.ndarray:
    """(n,) log of the distance to the nearest reference over that to the nearest fake row."""
    to_fake, to_reference = (ruler.nearest(table, among)[0] for among in (fake, reference))
    least = 1e-6  # of a column's range: a copy of either is nearer than anything else
    return np.log(np.maximum(to_reference, least)) - np.log(np.maximum(to_fake, least))


def _auc(name: str, members: np.ndarray, others: np.ndarray) -> Row:
    n, m = len(members), len(others)
    auc = roc_auc_score(np.repeat([1, 0], [n, m]), np.concatenate([members, others]))
    error = math.sqrt((n + m + 1) / (12 * n * m))  # of a score that tells nothing (Mann and Whitney)
    return name, float(auc), 0.5, error, f"{n:,} training rows, {m:,} of the holdout"


def _attribute(
    train: Coded, holdout: Coded, fake: Coded, label: Hashable, seed: int, rows: int | None, n_jobs: int | None
) -> list[Row]:
    """How well the column is guessed for training rows (value) and for those of the holdout (ideal)."""
    rng = np.random.default_rng(seed)
    most = cap(train, rows)
    train, holdout, fake = (present(table, label) for table in (train, holdout, fake))
    if not len(train) or not len(holdout) or len(fake) < 2:
        raise UserError(f"sensitive: column {label!r} is missing nearly everywhere")
    asked = train.sample(most // 2, rng), holdout.sample(most // 2, rng)
    fake = fake.sample(AMONG * most, rng)
    classes = int(train.sizes[train.factors.index(label)]) - 1 if label in train.factors else None
    truths, answers = [target_of(table, label) for table in asked], target_of(fake, label)
    what = "R2" if classes is None else "accuracy"
    unit = float(truths[1].var()) or 1.0
    blind = _rewards(truths[1], answers.mean() if classes is None else np.bincount(answers).argmax(), what, unit).mean()
    found = []
    for name, guesses in _guesses([table.without(label) for table in (*asked, fake)], answers, classes, seed, n_jobs):
        each = [_rewards(truth, guess, what, unit) for truth, guess in zip(truths, guesses, strict=True)]
        hits = [float(rewards.mean()) for rewards in each]
        error = math.sqrt(sum(rewards.var() / len(rewards) for rewards in each))
        comment = f"advantage {hits[0] - hits[1]:+.3f}; ideal: of the holdout; guessing the {_BLIND[what]}: {blind:.3f}"
        found.append((f"{label} by {name}, {what}", *hits, error, comment))
    return found


_BLIND = {"R2": "mean", "accuracy": "commonest"}


def _guesses(
    tables: list[Coded], answers: np.ndarray, classes: int | None, seed: int, n_jobs: int | None
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Two attacks by name: what they guess for the rows of the first two tables from the third and its answers."""
    ruler = Ruler(tables[0], "l1")
    yield "nearest row", [answers[ruler.nearest(table, tables[2])[1]] for table in tables[:2]]
    *asked, known = features(*tables, ordinal=ordinal())
    model = boosted(known, answers, classes, seed, n_jobs)
    yield "boosting", [model(part) if classes is None else model(part).argmax(1) for part in asked]


def _rewards(truth: np.ndarray, guess: Any, what: str, unit: float) -> np.ndarray:
    """(n,) whose mean is the accuracy, or R2 with `unit` as the variance."""
    return 1 - (truth - guess) ** 2 / unit if what == "R2" else (truth == guess).astype(float)


# ---- saying ----


def _sentence(found: list[Row], sensitive: list[Hashable]) -> str:
    rows = {row[0]: row for row in found}
    parts = [_say_nearer(rows["nearer to train"]), _say_copies(rows["exact copies"])]
    parts.append(_say_membership([row for row in found if row[0].startswith("membership")]))
    if sensitive:
        parts.append(
            _say_attributes({label: [row for row in found if row[0].startswith(f"{label} by ")] for label in sensitive})
        )
    return "; ".join(parts) + "."


def _excess(row: Row, least: float = _FAIR) -> bool:
    """Whether a value lies above its ideal by more than chance and more than nobody minds."""
    _, value, ideal, error, _ = row
    return value - ideal > max(least, 0.0 if math.isnan(error) else 2 * error)


def _say_nearer(row: Row) -> str:
    share = 100 * row[1]
    verdict = "as it should be"
    if _excess(row):
        verdict = f"where 50 would be right: {'training' if share > 60 else 'some training'} rows were learned by heart"
    elif row[1] < 0.5 - max(_FAIR, 2 * row[3]):
        verdict = "fewer than the 50 of a perfect sample, which is no harm to anybody"
    return f"Of 100 synthetic rows {share:.0f} lie nearer to a training row than to an unseen one, {verdict}"


def _say_copies(row: Row) -> str:
    _, ours, theirs, _, _ = row
    if ours == 0:
        return "none is an exact copy of a training row"
    beside = f"of unseen real rows {percent(theirs)} are" if theirs else "no unseen real row is"
    return f"{percent(ours)} are exact copies of training rows ({beside})"


def _say_membership(rows: list[Row]) -> str:
    words = " and ".join(f"{row[1]:.2f}" for row in rows)
    how = "better than" if any(_excess(row, 0.01) for row in rows) else "no better than"
    return f"an attacker tells training rows from unseen ones {how} by tossing a coin (AUC {words})"


def _say_attributes(found: dict[Hashable, list[Row]]) -> str:
    leaking = [label for label, rows in found.items() if any(_excess(row) for row in rows)]
    names = " and ".join(repr(str(label)) for label in leaking or found)
    return f"and guesses their {names} {'better' if leaking else 'no better'} than that of unseen ones"
