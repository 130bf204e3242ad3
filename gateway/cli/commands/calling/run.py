"""`hearth run`: runs an image, a function or a declared job many times."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import GatewayClient, Refused
from gateway.cli.common import CallerError, Gateway, gateway_options, json_option
from gateway.cli.names import TARGET
from gateway.cli.terminal import say
from gateway.cli.watch.job_watch import follow, show_end

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""Matches names of jobs and functions. A name with a colon or a slash is an image."""
NO_SUCH_STATUSES = (403, 404)
"""Statuses after which the target may still be something else: it is unknown, or hidden from this key."""


class PassThroughCommand(click.Command):
    """A command that passes unknown options on to another one.

    It refuses those that look like misspelt own options.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = [option for parameter in self.params for option in parameter.opts if option.startswith("--")]
        for word in [] if "--" in args else args:
            name = word.partition("=")[0]
            near = difflib.get_close_matches(name, own, n=1, cutoff=0.75) if name.startswith("--") else []
            if near and name not in own and name != "--help":
                raise click.UsageError(
                    f"unknown option {name}; did you mean {near[0]}? "
                    "To pass it to the command in the container, put -- before it"
                )
        return super().parse_args(ctx, args)


@click.command(
    cls=PassThroughCommand,
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@gateway_options
@json_option
@click.argument("target", metavar="IMAGE|FUNCTION|JOB", type=TARGET)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[CMD]...")
@click.option("--count", type=int, metavar="N", help="Number of tasks. Each gets its index.  [default: 1]")
@click.option(
    "--input",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="File with JSON lines, one task for each. - is stdin.",
)
@click.option("--retries", type=int, metavar="N", help="Further runs of a failed task.  [default: 0]")
@click.option(
    "--parallel", type=int, metavar="N", help="Most tasks at once.  [default: as many as the machine can run]"
)
@click.option("--memory", metavar="SIZE", help="Memory of each container, like 100MB.  [default: 128MiB]")
@click.option("--cpus", type=float, metavar="N", help="CPUs of each container.  [default: 1]")
@click.option("--cpu-shares", type=int, metavar="N", help="Weight of each container when CPUs are busy.")
@click.option("--env", "env", metavar="K=V", multiple=True, help="Environment variable. Repeatable.")
@click.option(
    "--network",
    type=click.Choice(["none", "egress"]),
    help="Network of each container; egress reaches other machines.  [default: none]",
)
@click.option("--user", metavar="UID[:GID]", help="User of each container; `image` is the image's own.")
@click.option(
    "--timeout", metavar="DURATION", help="Longest run of a task, like 10m.  [default: 1h for an image]"
)
@click.option(
    "--remove",
    type=click.Choice(["all", "succeeded", "none"]),
    help="Ended containers to remove.  [default: all]",
)
@click.option("--detach", is_flag=True, help="Print the job's id, and do not wait for its end.")
def run(
    url: str,
    key_file: Path | None,
    as_json: bool,
    target: str,
    command: tuple[str, ...],
    file: Path | None,
    env: tuple[str, ...],
    detach: bool,
    **given: Any,
) -> None:
    """Run an image, function or declared job as a batch.

    A task of an image is one container. It gets its input on stdin, and its stdout is the result. Any exit status but
    0 is a failure. Its variables include HEARTH_TASK_INDEX, HEARTH_TASK_COUNT, HEARTH_ATTEMPT and HEARTH_JOB_ID.

    The gateway stores the job and runs it without this command: Ctrl-C ends only this command. A name without colon
    and slash is a job of functions.yaml if there is one, else a function, else an image. The exit status is 0 only if
    every task has succeeded.

    \b
    Examples:
      hearth run hearth-example/busybox:latest env --count 10
      hearth run busybox:latest ./flaky --count 10 --retries 20 --memory 100MB
      hearth run hello --input names.jsonl --parallel 4
      hearth run nightly --detach
      hearth run busybox:latest -- ls --all
    """
    keys: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if file is not None:
        if "count" in keys:
            raise click.UsageError("give only one of --count and --input; each line of the file is a task")
        keys["inputs"] = list(inputs_of(file))
    if env:
        keys["env"] = dict(pair_of(variable) for variable in env)
    if command:
        keys["command"] = list(command)
    with Gateway(url, key_file) as gateway:
        job = start(gateway, target, keys)
        if detach:
            if as_json:
                say(json.dumps(job, indent=2))
            else:
                say(job["id"])
            return
        job = follow(gateway, job)
        show_end(gateway, job, as_json)
    if job["status"] != "succeeded":
        click.get_current_context().exit(1)


def start(gateway: GatewayClient, target: str, keys: dict[str, Any]) -> dict[str, Any]:
    """Start a job of the target: of the first kind that exists. Return its status."""
    tried: list[str] = []
    for kind in kinds_of(target, keys):
        body = {kind: target, **keys}
        if kind != "job" and "inputs" not in keys:
            body.setdefault("count", 1)
        try:
            return gateway.start("/jobs", json.dumps(body).encode(), {"content-type": "application/json"})
        except Refused as error:
            if kind == "image" or error.status not in NO_SUCH_STATUSES:
                if tried and error.status == 404:
                    error.detail = f"there is no {' and no '.join(tried)} {target}, and {error.detail}"
                raise
            tried.append(kind)
    raise AssertionError("an image is always tried")


def kinds_of(target: str, keys: dict[str, Any]) -> list[str]:
    """Return the kinds of thing that a target may be, in the order in which to try them."""
    if not NAME.fullmatch(target) or "command" in keys:
        return ["image"]
    if set(keys) <= {"count", "inputs", "parallel", "retries"}:
        return ["job", "function", "image"]
    return (
        ["function", "image"]
        if set(keys) <= {"count", "inputs", "parallel", "retries", "timeout"}
        else ["image"]
    )


def inputs_of(file: Path) -> Iterator[Any]:
    """Yield the values in a file of JSON lines. Empty lines are skipped. Raises `CallerError`."""
    name = "stdin" if str(file) == "-" else str(file)
    try:
        with click.open_file(str(file), encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise CallerError(f"{name}:{number}: {error}; each line must be JSON") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise CallerError(f"cannot read {name}: {why}") from error


def pair_of(variable: str) -> tuple[str, str]:
    """Return name and value of K=V. Raises `click.UsageError`."""
    name, equals, value = variable.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--env {variable!r} does not have the form K=V")
    return name, value
