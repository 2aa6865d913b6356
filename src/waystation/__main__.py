"""Entry point of the ``waystation`` command."""

import sys


def main() -> None:
    """Runs the command line, or says how to install what it needs."""
    try:
        from waystation.cli.door import leave
        from waystation.cli.main import app
    except ImportError as error:
        sys.exit(
            f"waystation: the command line needs more packages ({error.name}): pip install 'waystation[cli]'"
        )
    try:
        app()
    except SystemExit as end:
        leave(end.code)


if __name__ == "__main__":
    main()
