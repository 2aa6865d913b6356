"""How every server of the sandbox is run: on loopback alone, and not for other people's web pages."""

from collections.abc import Collection

import uvicorn
from fastapi import FastAPI

from waystation.browser_guard import JSON, BrowserGuard
from waystation.redaction import install_redaction


def serve(app: FastAPI, port: int, *, content_types: Collection[str] = (JSON,)) -> None:
    """Runs a server until the process is told to exit; bodies are of these types only."""
    install_redaction()
    guarded = BrowserGuard(app, content_types=content_types)
    uvicorn.run(guarded, host="127.0.0.1", port=port, log_level="warning")
