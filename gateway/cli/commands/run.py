"""`hearth run`: run an image, a function or a declared job many times."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import GatewayClient, Refused
from gateway.cli.common import Gateway, Mistake, gateway_options, json_option
from gateway.cli.terminal import say
from gateway.cli.watch.job_watch import follow, show_end

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""What a job or a function may be called; what has a colon or a slash is an image."""
NO_SUCH = (403, 404)
"""Answers after which a name may still be that of something else."""


class Words(click.Command):
    """A command whose words go to somebody else, options included. What looks like one of ours misspelt is refused:
    it would be a word of theirs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = [option for parameter in self.params for option in parameter.opts if option.startswith("--")]
        for word in [] if "--" in args else args:
            name = word.partition("=")[0]
            near = difflib.get_close_matches(name, own, n=1, cutoff=0.75) if name.startswith("--") else []
            if near and name not in own and name != "--help":
                raise click.UsageError(
                    f"there is no option {name}; did you mean {near[0]}? A command's own words go behind --"
                )
        return super().parse_args(ctx, args)


@click.command(cls=Words, context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@gateway_options
@json_option
@click.argument("target", metavar="IMAGE|FUNCTION|JOB")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[CMD]...")
@click.option("--count", type=int, metavar="N", help="Tasks; each is given its index.  [default: 1]")
@click.option(
    "--input",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="JSON lines, a task for each; - is stdin.",
)
@click.option("--retries", type=int, metavar="N", help="Further runs of a task that fails.  [default: 0]")
@click.option(
    "--parallel", type=int, metavar="N", help="Tasks at once.  [default: what the machine has room for]"
)
@click.option("--memory", metavar="SIZE", help="Of each container, like 100MB.  [default: 128MiB]")
@click.option("--cpus", type=float, metavar="N", help="Of each container.  [default: 1]")
@click.option("--cpu-shares", type=int, metavar="N", help="Weight where all want the processor.")
@click.option("--env", "env", metavar="K=V", multiple=True, help="A variable; can be repeated.")
@click.option("--network", type=click.Choice(["none", "egress"]), help="egress: a way out.  [default: none]")
@click.option("--user", metavar="UID[:GID]", help="Who it runs as; image: the image's own user.")
@click.option("--timeout", metavar="DURATION", help="Of one run, like 10m.  [default: 1h of an image]")
@click.option(
    "--remove",
    type=click.Choice(["all", "succeeded", "none"]),
    help="Which ended containers are removed.  [default: all]",
)
@click.option("--detach", is_flag=True, help="Do not wait for the end: print the job's id.")
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
    """Run an image, a deployed function or a job of functions.yaml as a batch, and show how it goes.

    A task of an image is one container: its input on stdin, stdout is its result, and an exit status other than 0
    has failed. It knows HEARTH_TASK_INDEX, HEARTH_TASK_COUNT, HEARTH_ATTEMPT and HEARTH_JOB_ID. The job is on disk
    and goes on without this command: Ctrl-C ends only the showing.

    A name without a colon or a slash is a job if there is one, else a function, else an image. The exit status is 0
    only if every task has succeeded.

    \b
    Examples:
      hearth run hearth-example/busybox:latest sh -c 'echo task $HEARTH_TASK_INDEX' --count 10
      hearth run busybox:latest ./flaky --count 10 --retries 20 --memory 100MB --cpu-shares 10
      hearth run hello --input names.jsonl --parallel 4
      hearth run nightly --detach
      hearth run busybox:latest -- ls --all
    """
    keys: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if file is not None:
        if "count" in keys:
            raise click.UsageError("give --count or --input; there is a task for each line of the file")
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
    """Start what the target names."""
    tried: list[str] = []
    for kind in kinds_of(target, keys):
        body = {kind: target, **keys}
        if kind != "job" and "inputs" not in keys:
            body.setdefault("count", 1)
        try:
            return gateway.start("/jobs", json.dumps(body).encode(), {"content-type": "application/json"})
        except Refused as error:
            if kind == "image" or error.status not in NO_SUCH:
                if tried and error.status == 404:
                    error.detail = f"there is no {' and no '.join(tried)} {target}, and {error.detail}"
                raise
            tried.append(kind)
    raise AssertionError("an image is always tried")


def kinds_of(target: str, keys: dict[str, Any]) -> list[str]:
    """What a target may be, in the order in which that is tried."""
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
    """The values of a JSON-lines file; empty lines are skipped. Raises `Mistake`."""
    name = "stdin" if str(file) == "-" else str(file)
    try:
        with click.open_file(str(file), encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise Mistake(f"{name}:{number}: {error}; each line must be JSON") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise Mistake(f"{name} cannot be read: {why}") from error


def pair_of(variable: str) -> tuple[str, str]:
    """Name and value of K=V. Raises `click.UsageError`."""
    name, equals, value = variable.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--env {variable!r} is not of the form K=V")
    return name, value
