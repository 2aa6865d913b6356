"""``waystation storage``: manages payloads stored outside Temporal's history."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from waystation.errors import NotNowError, StartError
from waystation.temporal.retention import DEFAULT_RETENTION_HOURS, MIN_RETENTION_HOURS
from waystation.terminal import say

if TYPE_CHECKING:
    from waystation.temporal.storage import Pruned

storage_app = typer.Typer(no_args_is_help=True, help="Manage stored payloads.")


@storage_app.callback()
def _group() -> None:
    """Keeps ``prune`` a subcommand even while it is the only one."""


@storage_app.command("prune")
def storage_prune(
    folder: Annotated[
        Path | None, typer.Option(help="The folder; WAYSTATION_STORAGE_DIR by default.")
    ] = None,
    retention_hours: Annotated[
        int,
        typer.Option(
            min=MIN_RETENTION_HOURS, help="Keep what is newer; not less than the namespace's own retention."
        ),
    ] = DEFAULT_RETENTION_HOURS,
    dry_run: Annotated[bool, typer.Option(help="Only print what would be removed.")] = False,
) -> None:
    """Remove payloads that no workflow's history needs any more."""
    removed = asyncio.run(_prune(folder, timedelta(hours=retention_hours), dry_run=dry_run))
    verb = "Would remove" if dry_run else "Removed"
    say(
        f"{verb} {removed.files} files ({removed.size_bytes:,} bytes); "
        f"{removed.unknown_workflows} of their workflows are no longer known to Temporal."
    )


async def _prune(folder: Path | None, retention: timedelta, *, dry_run: bool) -> "Pruned":
    from temporalio.service import RPCError

    from waystation.settings import read_settings
    from waystation.temporal.connect import connect
    from waystation.temporal.storage import prune

    settings = read_settings()
    folder = folder or settings.storage_dir
    if folder is None or not folder.is_dir():
        raise StartError("there is no payload folder; set WAYSTATION_STORAGE_DIR or give --folder.")
    async with AsyncExitStack() as resources:
        client = await connect(settings, resources)
        try:
            return await prune(folder, client, retention=retention, dry_run=dry_run)
        except (RPCError, OSError) as error:
            raise NotNowError(f"nothing more was removed: {error}") from error
