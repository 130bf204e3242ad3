"""Redis Streams: reads as a consumer of a group, named after the gateway."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from gateway.brokers.broker import ANSWER_SECONDS, QUIET_SECONDS, Message, without_credentials
from pool.clock import Clock
from scheduler.definitions.brokers import RedisStream

Entry = tuple[bytes, dict[bytes, bytes]]
NEW = ">"
START = "0-0"


class RedisBroker:
    """A `Broker` that reads one stream.

    Entries that we were given before and did not acknowledge come first, then those of dead consumers, then new ones.
    """

    def __init__(self, definition: RedisStream, consumer: str, clock: Clock) -> None:
        self._definition = definition
        self._url = definition.address
        self._consumer = consumer
        self._clock = clock
        self._client: Redis | None = None
        self._own: str | None = START
        """The entry after which we look for entries that we were given before, or None if there are no more."""
        self._claim_from = START
        self._claim_at = 0.0
        self.address = without_credentials(self._url, definition.stream)

    @property
    def _redis(self) -> Any:  # the library's answers are of any type
        assert self._client is not None
        return self._client

    async def open(self) -> None:
        self._client = Redis.from_url(
            self._url,
            socket_connect_timeout=ANSWER_SECONDS,
            socket_timeout=QUIET_SECONDS + ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            client_name="hearth",
        )
        stream, group = self._definition.stream, self._definition.group
        begin = "0" if self._definition.begin == "oldest" else "$"
        try:
            await self._redis.xgroup_create(stream, group, id=begin, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._own = START
        self._claim_from, self._claim_at = START, self._clock.now()

    async def take(self, most: int) -> Sequence[Message]:
        if self._own is not None:
            entries = await self._read(self._own, most)
            if entries:
                self._own = entries[-1][0].decode()
                return await self._messages(entries)
            self._own = None
        if self._clock.now() >= self._claim_at and (entries := await self._claim(most)):
            return await self._messages(entries)
        quiet = min(QUIET_SECONDS, self._claim_at - self._clock.now())
        return await self._messages(
            await self._read(NEW, most, max(1, int(quiet * 1000)))
        )  # 0 would wait without end

    async def _read(self, after: str, most: int, block: int | None = None) -> list[Entry]:
        definition = self._definition
        answer = await self._redis.xreadgroup(
            definition.group,
            self._consumer,
            {definition.stream: after},
            count=most,
            block=block,
        )
        return answer[0][1] if answer else []

    async def _claim(self, most: int) -> list[Entry]:
        """Return entries that other consumers have held for too long: those are likely dead."""
        definition = self._definition
        cursor, entries, *_ = await self._redis.xautoclaim(
            definition.stream,
            definition.group,
            self._consumer,
            int(definition.claim_after * 1000),
            self._claim_from,
            count=most,
        )
        self._claim_from = cursor.decode()
        if self._claim_from == START:
            self._claim_at = self._clock.now() + definition.claim_after
        return [entry for entry in entries if entry[0] is not None]

    async def _messages(self, entries: Sequence[Entry]) -> list[Message]:
        gone = [id for id, fields in entries if not fields]
        if gone:  # deleted from the stream since they were given to somebody
            await self._redis.xack(self._definition.stream, self._definition.group, *gone)
        return [message_of(id, fields, self._definition.field) for id, fields in entries if fields]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        ids = [message.receipt for message in messages]
        await self._redis.xack(self._definition.stream, self._definition.group, *ids)

    async def lag(self) -> int | None:
        groups = await self._redis.xinfo_groups(self._definition.stream)
        ours = [group for group in groups if group["name"] == self._definition.group.encode()]
        return ours[0].get("lag") if ours else None

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()


def message_of(id: bytes, fields: dict[bytes, bytes], field: str | None) -> Message:
    """Return the message of an entry, whose id begins with the milliseconds at which it was added."""
    name = id.decode()
    milliseconds = int(name.partition("-")[0])
    time = None
    if milliseconds < 253_402_300_800_000:  # the year 10000; publishers may choose any id
        time = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    if field is None:
        data = json.dumps(_as_object(fields), ensure_ascii=False).encode()
        return Message(name, data, "application/json", time=time, receipt=id)
    if (data_of_field := fields.get(field.encode())) is None:
        return Message(name, b"", time=time, fault=f"has no field {field!r}", receipt=id)
    return Message(name, data_of_field, time=time, receipt=id)


def _as_object(fields: dict[bytes, bytes]) -> dict[str, str]:
    """Return fields as text. One that is not text is named `NAME_base64`."""
    shown: dict[str, str] = {}
    for key, value in fields.items():
        name = key.decode(errors="backslashreplace")
        try:
            shown[name] = value.decode()
        except UnicodeDecodeError:
            shown[f"{name}_base64"] = b64encode(value).decode()
    return shown
