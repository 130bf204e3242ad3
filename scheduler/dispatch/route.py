"""Route: the revision of a function that a name leads to, or several by weight."""

from __future__ import annotations

import math
from itertools import accumulate
from random import random

from scheduler.dispatch.function import Function, Revision


class Route:
    """The revisions that a name leads to, each with its share of the calls. It never changes: another replaces it."""

    __slots__ = ("_bounds", "function", "only", "revisions")

    def __init__(self, *weighted: tuple[Revision, float]) -> None:
        """Weights are relative to each other; a revision of weight 0 is left out. Raises ValueError if none is left,
        or if a weight is below 0."""
        if any(weight < 0 for _, weight in weighted):
            raise ValueError("a weight of a route is below 0; use 0 or more")
        kept = [(revision, weight) for revision, weight in weighted if weight]
        if not kept:
            raise ValueError("a route leads to no revision; give one a weight above 0")
        self.revisions = tuple(revision for revision, _ in kept)
        self.function: Function = kept[0][0].function
        """The function of all its revisions."""
        self.only: Revision | None = self.revisions[0] if len(kept) == 1 else None
        """The revision of a route that has just one: no draw is needed for it."""
        total = sum(weight for _, weight in kept)
        bounds = accumulate(weight / total for _, weight in kept)
        self._bounds = (*list(bounds)[:-1], math.inf)  # sums of fractions may end just below 1

    def draw(self) -> Revision:
        """Return a revision by chance."""
        return self.only or self.pick(random())  # noqa: S311  not a secret

    def pick(self, draw: float) -> Revision:
        """Return the revision that a draw from 0 (included) to 1 (not included) falls on."""
        return next(
            revision for revision, bound in zip(self.revisions, self._bounds, strict=True) if draw < bound
        )
