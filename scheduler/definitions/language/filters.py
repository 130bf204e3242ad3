"""The condition of a trigger: the filter dialects of CloudEvents Subscriptions that need no language of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from scheduler.definitions.language.faults import shown

DIALECTS = ("exact", "prefix", "suffix", "all", "any", "not")
MOST_FILTERS = 5000
"""Filters of one trigger, in all. An event is tried against them in one turn of the event loop: 3 ms."""
DEEPEST = 16
"""Filters within one another."""


def _list(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(
            f"must be a list with at least one filter, not {'an empty one' if value == [] else shown(value)}"
        )
    return tuple(value)


def _attributes(value: object) -> object:
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"must be a mapping with at least one attribute, like {{type: x}}, not {shown(value)}"
        )
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isalnum() or value != value.lower():
        raise ValueError(
            f"must be the name of an attribute, lower-case letters and digits, not {shown(value)}"
        )
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f'must be text that is not empty, not {shown(value)}; quote it, like "1"')
    return value


Attributes = Annotated[
    dict[Annotated[str, BeforeValidator(_name)], Annotated[str, BeforeValidator(_text)]],
    BeforeValidator(_attributes),
]


class Filter(BaseModel):
    """One filter: exactly one of the dialects."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    exact: Attributes | None = None
    """Each of these attributes is this text."""
    prefix: Attributes | None = None
    """Each of these attributes begins with this text."""
    suffix: Attributes | None = None
    """Each of these attributes ends with this text."""
    all: Annotated[tuple[Filter, ...], BeforeValidator(_list)] | None = None
    any: Annotated[tuple[Filter, ...], BeforeValidator(_list)] | None = None
    not_: Filter | None = Field(None, alias="not")

    @model_validator(mode="before")
    @classmethod
    def _one_dialect(cls, value: Any) -> Any:
        if isinstance(value, dict) and not any(key in DIALECTS for key in value):
            raise ValueError(f"must have one of {', '.join(DIALECTS)}")
        if isinstance(value, dict) and sum(key in DIALECTS for key in value) > 1:
            raise ValueError(f"must have one of {', '.join(DIALECTS)}; `all` takes several filters together")
        if isinstance(value, dict) and (empty := [key for key in DIALECTS if value.get(key, key) is None]):
            raise ValueError(f"`{empty[0]}` is empty; write what it looks for")
        return value

    @model_validator(mode="after")
    def _not_too_deep(self) -> Self:
        if depth(self) > DEEPEST:
            raise ValueError(f"must not hold more than {DEEPEST} filters within one another")
        return self


def _not_too_many(filters: tuple[Filter, ...]) -> tuple[Filter, ...]:
    if (many := sum(map(count, filters))) > MOST_FILTERS:
        raise ValueError(f"must not hold more than {MOST_FILTERS} filters in all, not {many}")
    return filters


Filters = Annotated[tuple[Filter, ...], BeforeValidator(_list), AfterValidator(_not_too_many)]


def count(filter: Filter) -> int:
    """Return how many filters there are, this one and those within it."""
    inner = (*(filter.all or ()), *(filter.any or ()), *((filter.not_,) if filter.not_ else ()))
    return 1 + sum(map(count, inner))


def depth(filter: Filter) -> int:
    """How many filters are within one another, this one included."""
    inner = (*(filter.all or ()), *(filter.any or ()), *((filter.not_,) if filter.not_ else ()))
    return 1 + max(map(depth, inner), default=0)


def matches(filter: Filter, attributes: Mapping[str, str]) -> bool:
    """Whether an event with these attributes passes. One that it does not have passes nothing but a `not`."""
    if filter.all is not None:
        return match_all(filter.all, attributes)
    if filter.any is not None:
        return any(matches(inner, attributes) for inner in filter.any)
    if filter.not_ is not None:
        return not matches(filter.not_, attributes)
    if filter.exact is not None:
        return all(attributes.get(name) == text for name, text in filter.exact.items())
    if filter.prefix is not None:
        return all(attributes.get(name, "").startswith(text) for name, text in filter.prefix.items())
    assert filter.suffix is not None
    return all(attributes.get(name, "").endswith(text) for name, text in filter.suffix.items())


def match_all(filters: Iterable[Filter], attributes: Mapping[str, str]) -> bool:
    """Whether an event passes all of these; it passes none."""
    return all(matches(filter, attributes) for filter in filters)
