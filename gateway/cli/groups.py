"""Groups of commands that help with a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import click


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean hello?` with the name that is most like the given one, or an empty text."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class SuggestingGroup(click.Group):
    """A group that names the nearest command if there is none of the given name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand that the arguments name. Raises `click.UsageError`."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"there is no command {name}{near}", ctx)
        return super().resolve_command(ctx, args)


class ListByDefault(SuggestingGroup):
    """A group whose subcommand `list` runs if none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return the arguments left to parse."""
        named = args and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        unfinished = ctx.resilient_parsing  # a shell completes the subcommand
        return super().parse_args(ctx, args if named or unfinished else ["list", *args])
