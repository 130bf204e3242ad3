"""Lists and dead letters of a store with a million records: how long each takes, and how long accepts wait meanwhile.

Needs no gateway and no engine: `python -m bench.lists [ROWS]`.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from scheduler.calls.model import Query, Status
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.writer import Writer, open_database
from scheduler.work import NewCall, Request

ROWS = 1_000_000
DEAD_EVERY = 10
"""One record in so many is a dead letter of function `b`; `a` has none, and is searched for one."""
CLIENTS = 16
SECONDS = 5.0


def fill(file: Path, rows: int) -> None:
    """Keep so many ended calls, as a gateway would have left them."""
    database = open_database(file)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("BEGIN")
    database.executemany(
        "INSERT INTO invocations (id, function, status, accepted, since, due, started, ended, attempts)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
        (
            (f"{n:032x}", *(("b", "dead") if n % DEAD_EVERY == 0 else ("a", "succeeded")), n, n, n, n, n)
            for n in range(rows)
        ),
    )
    database.execute("INSERT INTO requests SELECT seq, '', x'7b7d', '' FROM invocations")
    database.execute(
        "INSERT INTO results SELECT seq, 200, '[]', x'7b7d', NULL, '', 'none', '' FROM invocations"
    )
    database.execute("COMMIT")
    database.close()


async def accepting(store: SqliteCallStore, until: Callable[[], bool]) -> list[float]:
    """Accept calls one after the other; return how long each took, in milliseconds."""
    took: list[float] = []
    while not until():
        begun = time.perf_counter()
        await store.accept(NewCall(secrets.token_hex(16), "c", Request(), b"{}"), time.time())
        took.append((time.perf_counter() - begun) * 1000)
    return took


async def beside(store: SqliteCallStore, what: Callable[[], Awaitable[object]], repeat: bool) -> str:
    """Do something, again and again for some seconds or once, while clients have calls accepted."""
    done = False
    clients = [asyncio.ensure_future(accepting(store, lambda: done)) for _ in range(CLIENTS)]
    took: list[float] = []
    end = time.monotonic() + SECONDS
    while True:
        begun = time.perf_counter()
        await what()
        took.append((time.perf_counter() - begun) * 1000)
        if not repeat or time.monotonic() > end:
            break
    done = True
    waited = sorted(x for each in await asyncio.gather(*clients) for x in each)
    took.sort()
    middle, worst = took[len(took) // 2], took[-1]
    p50, p99 = waited[len(waited) // 2], waited[len(waited) * 99 // 100]
    return (
        f"{middle:8.1f} ms, worst {worst:8.1f};  "
        f"accepts beside it: p50 {p50:6.1f}, p99 {p99:6.1f}, worst {waited[-1]:6.1f} ms"
    )


async def main(rows: int) -> None:
    """Print what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "calls.db"
        fill(file, rows)
        store = SqliteCallStore(Writer(file), 2**40)
        lists = {
            "nothing but accepts": lambda: asyncio.sleep(0.05),
            "?function=a&status=dead&limit=1": lambda: store.page(Query("a", (Status.DEAD,), limit=1)),
            "?function=b&status=dead": lambda: store.page(Query("b", (Status.DEAD,))),
            "?status=running": lambda: store.page(Query(statuses=(Status.RUNNING,))),
            "?function=b&status=succeeded": lambda: store.page(Query("b", (Status.SUCCEEDED,))),
            "?limit=1000": lambda: store.page(Query(limit=1000)),
            "counts": store.counts,
        }
        for name, work in lists.items():
            print(f"{name:<32} {await beside(store, work, repeat=True)}", flush=True)
        print(
            f"{'redrive ' + str(rows // DEAD_EVERY):<32} "
            f"{await beside(store, lambda: store.redrive(time.time()), repeat=False)}"
        )
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
