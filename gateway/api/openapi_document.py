"""The OpenAPI document as it is served: written once, filled in for each reader, and kept as bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response

from gateway.access.access import CURRENT, NOTHING, OPEN, Admission
from gateway.api.openapi_invoke import (
    ALL_BODIES,
    ALL_FUNCTIONS,
    MOST_OWN_OPERATIONS,
    SERVERS,
    Shown,
    function_operation,
    function_parameter,
    function_schemas,
    request_body,
)
from gateway.api.openapi_static import OWN_PATHS, OWN_SCHEMAS, call_security, static_document
from gateway.api.parts import api_parts_of
from gateway.http.problems import Problem
from pool.contracts.registry import CONTRACTS

KEPT = 8
"""Documents that are kept, each of another reader or another state of the functions. With 1,000 functions one has
half a megabyte."""
MOST_WAITING = 64
"""Requests that wait until their document is filled in. One takes some milliseconds, and one is made at a time."""


MARKS = re.compile(f'("(?:{ALL_FUNCTIONS}|{SERVERS}|{ALL_BODIES})"|"(?:{OWN_PATHS}|{OWN_SCHEMAS})":0,)')
"""Marks in the text of the document without functions."""


@dataclass(frozen=True, slots=True)
class ServedDocument:
    """A document in bytes, and its entity tag."""

    body: bytes
    tag: str


@dataclass(frozen=True, slots=True)
class Look:
    """All that a document depends on. Equal ones have the same document."""

    needs_key: bool
    sight: str
    declared: tuple[Shown, ...]


class Template:
    """The document without functions: the same for as long as the process runs."""

    def __init__(self, app: FastAPI, needs_key: bool) -> None:
        text = json.dumps(static_document(app, needs_key), ensure_ascii=False, separators=(",", ":"))
        self._pieces = [piece.encode() for piece in MARKS.split(text)]
        """Pieces that stay, and a mark between each two."""
        self._security = call_security(needs_key)

    def filled(self, declared: Sequence[Shown]) -> ServedDocument:
        """Return the document that names these functions."""
        own = [shown for shown in declared if shown.schema][:MOST_OWN_OPERATIONS]
        servers = [shown for shown in declared if CONTRACTS[shown.kind].sub_paths]
        paths = {f"/invoke/{one.name}": {"post": function_operation(one, self._security)} for one in own}
        schemas = {name: schema for one in own for name, schema in function_schemas(one).items()}
        values = {
            f'"{ALL_FUNCTIONS}"': _json(function_parameter(declared)),
            f'"{SERVERS}"': _json(function_parameter(servers)),
            f'"{ALL_BODIES}"': _json(request_body(declared)),
            f'"{OWN_PATHS}":0,': _entries(paths),
            f'"{OWN_SCHEMAS}":0,': _entries(schemas),
        }
        marks = {mark.encode(): value for mark, value in values.items()}
        body = b"".join(marks.get(piece, piece) for piece in self._pieces)
        return ServedDocument(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class Documents:
    """The documents of one gateway. One is made at a time, in a thread; the latest few are kept."""

    def __init__(self, app: FastAPI) -> None:
        parts = api_parts_of(app)
        self._app = app
        self._access = parts.access
        self._registry = parts.registry
        self._templates: dict[bool, Template] = {}
        self._kept: OrderedDict[Look, ServedDocument] = OrderedDict()
        self._making = asyncio.Lock()
        self._waiting = 0
        self.made = 0
        """Documents that were filled in so far."""

    async def of(self, reader: Admission) -> ServedDocument:
        """Return the document as of now, with the functions that a reader may see. Raises `Problem`."""
        look = self._look(reader)
        if (kept := self._find(look)) is not None:
            return kept
        if self._waiting >= MOST_WAITING:
            raise Problem("no-capacity", "the document is being made for many others", retry_after=1.0)
        self._waiting += 1
        try:
            async with self._making:
                if (kept := self._find(look)) is not None:
                    return kept
                made = await asyncio.to_thread(self._make, look, reader)
                self._kept[look] = made
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                self.made += 1
                return made
        finally:
            self._waiting -= 1

    def make(self, reader: Admission) -> ServedDocument:
        """Make and return a reader's document as of now. It takes some 100 ms and is not kept: use `of` to serve."""
        return self._make(self._look(reader), reader)

    def _find(self, look: Look) -> ServedDocument | None:
        if (kept := self._kept.get(look)) is not None:
            self._kept.move_to_end(look)
        return kept

    def _look(self, reader: Admission) -> Look:
        """Return all that a reader's document depends on now. Many readers see nothing: they cost nothing."""
        declared = () if reader.sight is NOTHING else self._registry.declared.items()
        shown = tuple(
            Shown(
                name,
                d.definition.kind.value,
                d.state,
                schema.text if (schema := d.definition.schemas) else "",
            )
            for name, d in declared
        )
        return Look(self._access.keys is not None, reader.sight, shown)

    def _make(self, look: Look, reader: Admission) -> ServedDocument:
        if (template := self._templates.get(look.needs_key)) is None:
            template = self._templates[look.needs_key] = Template(self._app, look.needs_key)
        return template.filled(sorted(shown for shown in look.declared if reader.may_name(shown.name)))


def document(app: FastAPI, reader: Admission = OPEN) -> dict[str, Any]:
    """Return the document as of now, as data."""
    found: dict[str, Any] = json.loads(Documents(app).make(reader).body)
    return found


def serve_document(app: FastAPI) -> None:
    """Have the app answer with our document instead of its own."""
    app.router.routes[:] = [
        route for route in app.router.routes if getattr(route, "path", None) != app.openapi_url
    ]
    app.state.documents = Documents(app)
    app.add_api_route(app.openapi_url or "/openapi.json", read_document, include_in_schema=False)


async def read_document(request: Request) -> Response:
    """Answer with the document that the caller may see, or tell it that it has that document already."""
    documents: Documents = request.app.state.documents
    served = await documents.of(CURRENT.get())
    headers = {
        "etag": served.tag,
        "cache-control": "private, no-cache",
        "vary": "Authorization, X-Hearth-Key",
    }
    if is_known(request.headers.getlist("if-none-match"), served.tag):
        return Response(status_code=304, headers=headers)
    return Response(served.body, headers=headers, media_type="application/json")


def is_known(fields: Sequence[str], tag: str) -> bool:
    """Return whether If-None-Match names an entity tag (RFC 9110: weakly compared)."""
    named = [part.strip().removeprefix("W/") for field in fields for part in field.split(",")]
    return tag in named or "*" in named


def _entries(values: dict[str, Any]) -> bytes:
    """Return the entries of an object that has more behind them."""
    return b"%b," % _json(values)[1:-1] if values else b""


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
