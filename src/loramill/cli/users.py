"""``loramill users``: who may sign in. Passwords are asked for, never given on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loramill.auth.audit_log import AuditLog
from loramill.auth.models import Role, User
from loramill.auth.passwords import MAX_BYTES, Passwords
from loramill.auth.users import UserInfo, UserStore, check_username
from loramill.cli.local import local_actor, open_database
from loramill.cli.output import AsJson, print_json
from loramill.settings import Settings

HOW_TO_GIVE_IT = (
    "The password is asked for; without a terminal it is the first line of standard input, or LORAMILL_NEW_PASSWORD."
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Create, list and disable the people who may sign in."
)

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="Name or id, such as ada or u1.")]


@app.command("create-admin", epilog=HOW_TO_GIVE_IT)
def create_admin(
    username: Annotated[str | None, typer.Argument(help="Default: LORAMILL_ADMIN_USER, or asked for.")] = None,
) -> None:
    """Create an administrator."""
    settings = Settings.load()
    name = username or settings.admin_user or typer.prompt("User name", err=True)
    given = settings.new_password or settings.admin_password
    _create(settings, name, given.get_secret_value() if given else None, Role.ADMIN)


@app.command(epilog=HOW_TO_GIVE_IT)
def create(username: str, role: Annotated[Role, typer.Option(help="What they may do.")] = Role.USER) -> None:
    """Create a user."""
    settings = Settings.load()
    _create(settings, username, _given_password(settings), role)


@app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List all users, disabled ones too."""
    with open_database(Settings.load()) as database, database.reading() as session:
        users = [UserInfo.of(user) for user in UserStore(session).everybody()]
    if as_json:
        print_json({"users": [user.as_dict() for user in users]})
        return
    table = Table("id", "name", "role", "state", "created")
    for user in users:
        state = "disabled" if user.disabled else "active"
        table.add_row(user.user_id, user.username, user.role, state, f"{user.created_at.astimezone():%Y-%m-%d %H:%M}")
    Console().print(table)


@app.command()
def disable(user: UserArgument) -> None:
    """Lock a user out at once: every sign-in ends, experiments stay."""
    changed = _change(Settings.load(), "user.disable", user, lambda store: store.set_disabled(user, True))
    typer.echo(f"{changed.username} ({changed.id}) is disabled")


@app.command()
def enable(user: UserArgument) -> None:
    """Let a disabled user in again."""
    changed = _change(Settings.load(), "user.enable", user, lambda store: store.set_disabled(user, False))
    typer.echo(f"{changed.username} ({changed.id}) may sign in")


@app.command("set-role")
def set_role(user: UserArgument, role: Annotated[Role, typer.Argument(help="user or admin.")]) -> None:
    """Make somebody an administrator, or no longer; they have to sign in again."""
    changed = _change(Settings.load(), f"user.set_role.{role}", user, lambda store: store.set_role(user, role))
    typer.echo(f"{changed.username} ({changed.id}) is {role}")


@app.command("set-password", epilog=HOW_TO_GIVE_IT)
def set_password(user: UserArgument) -> None:
    """Give a user a new password; every sign-in with the old one ends."""
    settings = Settings.load()
    new_hash = Passwords().hash(_given_password(settings) or _ask_password())
    changed = _change(settings, "user.set_password", user, lambda store: store.set_password_hash(user, new_hash))
    typer.echo(f"{changed.username} ({changed.id}) has a new password")


def _change(settings: Settings, action: str, reference: str, change: Callable[[UserStore], User]) -> User:
    """Change a user in one audited transaction."""
    with open_database(settings) as database:
        with database.reading() as session:
            target = UserStore(session).get(reference).id
        with AuditLog.from_settings(settings, database).transaction(local_actor(), action, target) as session:
            return change(UserStore(session))


def _create(settings: Settings, username: str, given: str | None, role: Role) -> None:
    check_username(username)  # before anybody types a password for nothing
    password_hash = Passwords().hash(given or _ask_password())
    with open_database(settings) as database:
        audit = AuditLog.from_settings(settings, database)
        with audit.transaction(local_actor(), "user.create", username) as session:
            user = UserStore(session).create(username, password_hash=password_hash, role=role)
        typer.echo(f"{user.username} ({user.id}) may sign in as {role}")


def _given_password(settings: Settings) -> str | None:
    return settings.new_password.get_secret_value() if settings.new_password else None


def _ask_password() -> str:
    """Twice at a terminal, without showing it; otherwise the first line of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline(MAX_BYTES + 2).rstrip("\r\n")
