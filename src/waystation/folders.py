"""Folders that are named in a setting or an option, made and checked before anything rests on them."""

import os
from pathlib import Path

from waystation.errors import StartError


def made_folder(folder: Path, named: str) -> Path:
    """Returns the folder, which exists and can be written to; ``named`` is the setting or option.

    Raises:
        StartError: It can't be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"{named}: {folder} can't be made ({error.strerror}); choose another.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StartError(f"{named}: {folder} can't be written to; choose another, or change who may.")
    return folder
