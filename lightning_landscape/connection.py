"""What a search for a path between two points found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from lightning_landscape.path import Path, Profile
from lightning_landscape.storage.plain import plain_json


def level_above(losses: Sequence[float], margin: float) -> float:
    """The level that lies a margin above the largest of some losses: ``u = L + margin |L|``, L = max_i losses_i.

    The absolute value makes a margin raise a negative loss too.

    Args:
        losses: at least one loss, as a rule those of the endpoints. With a NaN among them the level is NaN.
        margin: how far above the largest loss the level lies, as a share of it; 0 is strict.

    Raises:
        ValueError: for a margin that is negative or not finite, and for no losses.

    Example:
        >>> level_above([2.0, 1.0], 0.5), level_above([-2.0, -3.0], 0.5)
        (3.0, -1.0)
    """
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be a finite number of at least 0, got {margin}: give 0 for a strict level")
    if not losses:
        raise ValueError("losses is empty: a level needs at least one loss to lie above")
    largest = math.nan if any(math.isnan(loss) for loss in losses) else max(losses)
    return largest + margin * abs(largest)


class Verdict(StrEnum):
    """Outcome of a search for a path below a level.

    ``not_found`` never proves that two points are disconnected: it says that this search, with this
    budget, did not find a path. To people it is called *undecided*, with the reason (:func:`outcome`);
    ``Verdict.UNDECIDED`` is the same member. ``separated`` is proved: no path stays below the level. A search never
    says it; see :mod:`lightning_landscape.certificates`.

    Example:
        >>> Verdict.CONNECTED == "connected", Verdict("undecided") is Verdict.NOT_FOUND
        (True, True)
    """

    CONNECTED = "connected"
    NOT_FOUND = "not_found"
    UNDECIDED = "not_found"
    SEPARATED = "separated"

    @classmethod
    def _missing_(cls, value: object) -> Verdict | None:
        return cls.NOT_FOUND if value == "undecided" else None


class Reason(StrEnum):
    """Why a search ended without a path below the level."""

    ENDPOINT = "endpoint"  # an endpoint lies above the level, so no path from it can stay below
    DEPTH = "depth"  # segments still rose above the level at the depth limit
    BEAD = "bead"  # a bead could not be trained below the level
    BUDGET = "budget"  # the work or the time was spent
    DIVERGED = "diverged"  # a loss was NaN or infinite
    ERROR = "error"  # the check itself failed; the row carries the message

    @property
    def words(self) -> str:
        """The same for people."""
        return _WORDS[self]


_WORDS: dict[str, str] = {
    Reason.ENDPOINT: "level below an end",
    Reason.DEPTH: "depth limit reached",
    Reason.BEAD: "a bead stayed above the level",
    Reason.BUDGET: "budget spent",
    Reason.DIVERGED: "a loss is not finite",
    Reason.ERROR: "the check failed",
}


def outcome(verdict: str, reason: str | None) -> str:
    """A verdict in words: ``connected``, or ``undecided`` and why.

    Args:
        verdict: of a connection, or of a row.
        reason: of the same, ``None`` where there is none.

    Example:
        >>> outcome("connected", None), outcome("not_found", "budget")
        ('connected', 'undecided: budget spent')
    """
    if reason is None:
        return Verdict(verdict).value
    return f"undecided: {_WORDS.get(reason, reason)}"


@dataclass(frozen=True)
class Connection:
    """What a search for a path between two points found.

    ``height`` is an upper bound of the minimax value ``min_path max_t E(path(t))`` and is the
    informative number; ``verdict`` only compares it with ``level``. All of the measured figures come
    from ``profile``, a grid on the returned path that is finer than the one the search used.

    Attributes:
        verdict: ``connected`` iff ``height <= level``, and that was verified between the samples.
        reason: why no path was found, ``None`` when connected, and when separated.
        path: the lowest path found; ``None`` for a row read back from a file.
        level: the level u that the height is compared with.
        loss_a, loss_b: E at the endpoints.
        linear_height, linear_barrier: height and barrier of the straight segment.
        height, barrier: max of E along the path; the same less the linear interpolation of the end losses.
        length, normalized_length: arc length; arc length / ||theta_a - theta_b||, at least 1.
        num_beads: interior beads of the path, 0 for the straight line.
        gradient_steps: forward-and-backward passes, each of one bead on one batch.
        loss_evaluations: evaluations of E, each over the whole probe set.
        work: cost in training steps: gradient steps plus a third of every forward pass on a batch.
        seconds: wall time.
        profile, linear_profile: (t, loss) along the path and along the straight segment.
        message: the error's text for ``reason == "error"``.
        aligned: whether the path ends in a permuted copy of theta_b, a point with the same function, rather
            than in theta_b; it then connects theta_a with the copy, and says nothing of theta_b itself.
        verified: how ``connected`` was verified: ``"fine"``, on a grid three times finer than the search's throughout,
            or ``"curvature"``, measured finer only where a bound on the curvature did not exclude the level.
        floor: a height that every path is proved to reach; NaN where none is proved, above the level when separated.
    """

    verdict: Verdict
    reason: Reason | None
    path: Path | None = field(repr=False, compare=False)
    level: float
    loss_a: float
    loss_b: float
    linear_height: float
    linear_barrier: float
    height: float
    barrier: float
    length: float
    normalized_length: float
    num_beads: int
    gradient_steps: int
    loss_evaluations: int
    work: float
    seconds: float
    profile: Profile = field(repr=False)
    linear_profile: Profile = field(repr=False)
    message: str | None = None
    aligned: bool = False
    verified: str | None = None
    floor: float = math.nan

    @property
    def connected(self) -> bool:
        """Whether the verdict is ``connected``."""
        return self.verdict is Verdict.CONNECTED

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON without the path; a number that is not finite becomes ``None``."""
        row = asdict(replace(self, path=None))
        del row["path"]
        row["profile"] = self.profile._asdict()
        row["linear_profile"] = self.linear_profile._asdict()
        return {key: plain_json(value) for key, value in row.items()}

    @classmethod
    def failed(cls, error: Exception) -> Connection:
        """What stands for a search that raised: nothing measured, ``not_found``, and the error's text.

        Example:
            >>> Connection.failed(OSError("disk full")).message
            'OSError: disk full'
        """
        unknown = math.nan
        return cls(
            verdict=Verdict.NOT_FOUND,
            reason=Reason.ERROR,
            path=None,
            level=unknown,
            loss_a=unknown,
            loss_b=unknown,
            linear_height=unknown,
            linear_barrier=unknown,
            height=unknown,
            barrier=unknown,
            length=unknown,
            normalized_length=unknown,
            num_beads=0,
            gradient_steps=0,
            loss_evaluations=0,
            work=0.0,
            seconds=0.0,
            profile=Profile((), ()),
            linear_profile=Profile((), ()),
            message=f"{type(error).__name__}: {error}",
        )

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Connection:
        """Reads :meth:`to_dict` back: ``path`` is ``None``, what was not finite is NaN, unknown keys are ignored.

        A row from before there was alignment reads as not aligned, one from before there were proofs as without one,
        and one that does not say how it was verified as ``None``.

        Raises:
            KeyError: if a field is missing.
        """
        row = {"aligned": False, "verified": None, "floor": None, **row}
        known = {name: row[name] for name in cls.__dataclass_fields__ if name != "path"}
        for name, value in known.items():
            if value is None and name not in ("reason", "message", "verified"):
                known[name] = math.nan
        for name in ("profile", "linear_profile"):
            t, loss = row[name]["t"], row[name]["loss"]
            known[name] = Profile(tuple(t), tuple(math.nan if value is None else value for value in loss))
        known["verdict"] = Verdict(row["verdict"])
        known["reason"] = Reason(row["reason"]) if row["reason"] else None
        return cls(path=None, **known)
