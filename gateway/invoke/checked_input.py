"""Input that is checked against its function's JSON Schema before the call gets an instance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.http.pieces import SMALL_BODY_BYTES
from gateway.http.problems import Problem
from gateway.invoke.body import DOCUMENT_FACTOR, RequestBody
from gateway.memory.reservation import reservation_of
from scheduler.definitions.input_check import InputCheck


async def read_checked(
    body: RequestBody, check: InputCheck, scope: Mapping[str, Any], timeout: float, function: str
) -> None:
    """Read a whole body, and leave it in `body`. Raises `ClientGone`, and `Problem` 422 if it does not fit."""
    try:
        async with body.clock.timeout(timeout):
            await body.read_ahead(body.limit + 1)
    except TimeoutError:
        raise Problem("body-timeout", "the rest of the request's body did not come in time") from None
    data = body.take()
    body.put_back(data)
    await check_input(check, data, scope, function)


async def check_input(check: InputCheck, data: bytes, scope: Mapping[str, Any], function: str) -> None:
    """Raise `Problem` 422 if an input does not fit. Memory for its parsed JSON is reserved meanwhile."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    reservation = reservation_of(scope)
    held = reservation.held
    await reservation.grow_to(min(held + len(data) * DOCUMENT_FACTOR, reservation.most))
    try:
        if len(data) <= SMALL_BODY_BYTES:
            fault = check.fault_of(data, kind)
        else:
            fault = await asyncio.to_thread(check.fault_of, data, kind)
    finally:
        reservation.shrink_to(held)
    if fault is not None:
        place = f" at {fault.pointer}" if fault.pointer else ""
        detail = f"the input of {function} does not fit its schema{place}: {fault.reason}"
        raise Problem("input-mismatch", detail, pointer=fault.pointer)
