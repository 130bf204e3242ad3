"""Filters of a trigger: the dialects of CloudEvents Subscriptions, without CESQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from scheduler.definitions.language.faults import shown

DIALECTS = ("exact", "prefix", "suffix", "all", "any", "not")
MAX_FILTERS = 5000
"""Filters of one trigger, nested ones included. One turn of the event loop tries an event against all: 3 ms."""
MAX_FILTER_DEPTH = 16
"""Levels of filters within one another; `matches` recurses."""


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
    """Each of these attributes equals its text."""
    prefix: Attributes | None = None
    """Each of these attributes begins with its text."""
    suffix: Attributes | None = None
    """Each of these attributes ends with its text."""
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
            raise ValueError(f"`{empty[0]}` is empty; write the text or the filters to look for")
        return value

    @model_validator(mode="after")
    def _not_too_deep(self) -> Self:
        if depth(self) > MAX_FILTER_DEPTH:
            raise ValueError(f"must not hold more than {MAX_FILTER_DEPTH} filters within one another")
        return self


def _not_too_many(filters: tuple[Filter, ...]) -> tuple[Filter, ...]:
    if (many := sum(map(count, filters))) > MAX_FILTERS:
        raise ValueError(f"holds {many} filters, nested ones included; {MAX_FILTERS} are allowed")
    return filters


Filters = Annotated[tuple[Filter, ...], BeforeValidator(_list), AfterValidator(_not_too_many)]


def count(filter: Filter) -> int:
    """Return how many filters a filter holds, itself included."""
    inner = (*(filter.all or ()), *(filter.any or ()), *((filter.not_,) if filter.not_ else ()))
    return 1 + sum(map(count, inner))


def depth(filter: Filter) -> int:
    """Return how many levels of filters a filter has, itself included."""
    inner = (*(filter.all or ()), *(filter.any or ()), *((filter.not_,) if filter.not_ else ()))
    return 1 + max(map(depth, inner), default=0)


def matches(filter: Filter, attributes: Mapping[str, str]) -> bool:
    """Return whether an event with these attributes passes. An attribute that it lacks matches no text."""
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
    """Return whether an event passes all of these filters; True if there are none."""
    return all(matches(filter, attributes) for filter in filters)
