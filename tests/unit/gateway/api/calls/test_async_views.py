"""What the API shows of accepted calls."""

from __future__ import annotations

import json

import pytest

from gateway.api.calls.views import record_json, record_view
from scheduler.calls.model import CallRecord, Status

NEW = CallRecord(
    seq=7,
    id="6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4",
    function="hello-2",
    status=Status.QUEUED,
    attempts=0,
    accepted=1_700_000_000.25,
    due=1_700_000_000.25,
    started=None,
    ended=None,
    error=None,
    detail="",
    blame="none",
)


@pytest.mark.parametrize(
    "record",
    [
        NEW,
        NEW._replace(accepted=1_700_000_000.0, due=1_700_000_000.0),
        NEW._replace(due=NEW.accepted + 1),
        NEW._replace(attempts=1, due=NEW.accepted + 2, error="timeout", blame="function", detail='"%s"'),
        NEW._replace(owner="job:a", part="1"),
        NEW._replace(status=Status.SUCCEEDED, attempts=1, ended=NEW.accepted + 1),
    ],
)
def test_a_record_as_json_is_its_view(record: CallRecord) -> None:
    assert json.loads(record_json(record)) == json.loads(record_view(record).model_dump_json())
