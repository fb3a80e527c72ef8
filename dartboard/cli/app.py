"""The command's entry: its commands, its exit codes, and how errors are told."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from dartboard.cli import (
    architectures,
    demo,
    keys,
    local,
    logs,
    output,
    paths,
    profile,
    queue,
    searches,
    steering,
    submitting,
    trainings,
    webhooks,
)
from dartboard.errors import DartboardError, ServerUnreachableError
from dartboard.local.signals import Terminated

EXIT_CODES = (
    "Exit codes: 0 it worked; 1 the server said no, or the search that was followed did not "
    "succeed, or something on this machine did not start; 2 the command line is wrong; 3 no server "
    "answers; 130 Ctrl-C; 143 SIGTERM."
)


class _PlainFlags:
    """Shows flags in the help without a type, since they take no value."""

    def get_params(self, ctx: Any) -> Any:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for option in params:
            if isinstance(option, TyperOption) and option.is_flag:
                option.metavar = ""
        return params


class _Command(_PlainFlags, TyperCommand):
    pass


class _Group(_PlainFlags, TyperGroup):
    pass


app = typer.Typer(
    name="dartboard",
    cls=_Group,
    help="Architecture search as a service: submit a search, follow it, fetch what it found.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_command = partial(app.command, cls=_Command)
_HERE, _SEARCHES, _FOUND, _WHO = "On this machine", "Searches", "Architectures", "Who may ask"
_command(rich_help_panel=_HERE)(local.up)
_command(rich_help_panel=_HERE)(local.down)
_command(rich_help_panel=_HERE)(local.status)
_command(rich_help_panel=_HERE)(logs.logs)
_command(rich_help_panel=_HERE)(demo.demo)
_command(rich_help_panel=_SEARCHES)(submitting.submit)
_command(rich_help_panel=_SEARCHES)(searches.follow)
_command(rich_help_panel=_SEARCHES)(searches.show)
_command("list", rich_help_panel=_SEARCHES)(searches.list_searches)
_command(rich_help_panel=_SEARCHES)(steering.cancel)
_command(rich_help_panel=_SEARCHES)(steering.pause)
_command(rich_help_panel=_SEARCHES)(steering.resume)
_command(rich_help_panel=_SEARCHES)(steering.retry)
_command(rich_help_panel=_SEARCHES)(steering.change)
_command(rich_help_panel=_SEARCHES)(steering.delete)
_command(rich_help_panel=_SEARCHES)(trainings.train)
_command("trainings", rich_help_panel=_SEARCHES)(trainings.list_trainings)
_command(rich_help_panel=_SEARCHES)(queue.queue)
_command(rich_help_panel=_SEARCHES)(queue.presets)
_command(rich_help_panel=_FOUND)(architectures.genotype)
_command(rich_help_panel=_FOUND)(architectures.draw)
_command(rich_help_panel=_FOUND)(paths.paths)
_command(rich_help_panel=_FOUND)(profile.profile)
_command(rich_help_panel=_WHO)(keys.whoami)


def _group(name: str, summary: str) -> typer.Typer:
    made = typer.Typer(name=name, cls=_Group, help=summary, no_args_is_help=True)
    app.add_typer(made, rich_help_panel=_WHO)
    return made


_keys = _group("keys", "Make, list and revoke keys.")
_keys.command(cls=_Command)(keys.create)
_keys.command("list", cls=_Command)(keys.list_keys)
_keys.command(cls=_Command)(keys.revoke)
_owners = _group("owners", "Weights, quotas and teams of those whom searches belong to.")
_owners.command("list", cls=_Command)(keys.list_owners)
_owners.command("set", cls=_Command)(keys.set_owner)

_webhooks = _group("webhooks", "Tell addresses of events, and see what came of it.")
_webhooks.command(cls=_Command)(webhooks.create)
_webhooks.command("list", cls=_Command)(webhooks.list_webhooks)
_webhooks.command(cls=_Command)(webhooks.delete)
_webhooks.command(cls=_Command)(webhooks.deliveries)
_webhooks.command(cls=_Command)(webhooks.redeliver)
_webhooks.command("test", cls=_Command)(webhooks.ping)
_webhooks.command(cls=_Command)(webhooks.enable)
_webhooks.command(cls=_Command)(webhooks.disable)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line without the program's name; None takes this process's.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        code = get_command(app).main(given, prog_name="dartboard", standalone_mode=False)
    except typer.TyperException as error:
        output.tell_usage_error(error, as_json=as_json)
        return error.exit_code
    except ServerUnreachableError as error:
        output.tell_error(error, as_json=as_json)
        return 3
    except DartboardError as error:
        output.tell_error(error, as_json=as_json)
        return 1
    except typer.Abort:
        return 130
    except Terminated as signal:
        return 128 + signal.number
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `dartboard list | head`.
        output.silence_stdout()
        return 0
    return code if isinstance(code, int) else 0


def _show_version(wanted: bool) -> None:
    if wanted:
        from dartboard import __version__

        print(f"dartboard {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    pass
