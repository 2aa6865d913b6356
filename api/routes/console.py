"""The console: the static files of a web page, served with a policy that lets it run its own code only.

``/console/waystation-chat.js`` is for other pages too: an element that shows a session there.

The page asks for its parts below ``/console/<version>/``, where the version is a digest of all of them. So
browsers keep a part for good, and no page mixes two versions: parts of another version are not there.

Comments are for those who read the source: modules are served without those that have lines of
their own, and without types. The lines stay, empty, so that their numbers are those of the source.
"""

import hashlib
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

FOLDER = Path(__file__).resolve().parents[2] / "console"

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types push-worker",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

OF_THE_PAGE = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""What a browser reads of a document only; its many parts are smaller without."""

OF_PARTS = {"Access-Control-Allow-Origin": "*"}
"""For any page that embeds the element, and the same for each: a browser may keep one answer for them and the
console. What they may ask the API for is up to ``WAYSTATION_ALLOWED_ORIGINS``."""


CURRENT = {"Cache-Control": "no-cache"}
"""Of the page, and of parts at an address without a version: browsers ask for them each time."""

FOR_GOOD = {"Cache-Control": "public, max-age=31536000, immutable"}

TYPE_IN_LINE = re.compile(r"/\*\* @[^*]*\*/ ?")

PAGE = "index.html"
ELEMENT = "waystation-chat.js"
VERSION_CHARACTERS = 16


def install(app: FastAPI) -> None:
    """Serves the page at ``/`` and its parts under ``/console``. They hold no data and need no credential."""
    parts = _read(FOLDER)
    version = version_of(parts)
    page = parts.pop(PAGE).decode().replace('"/console/', f'"/console/{version}/')

    @app.get("/", include_in_schema=False)
    async def whole_page() -> HTMLResponse:
        return HTMLResponse(page, headers=HEADERS | OF_THE_PAGE | CURRENT)

    async def part(request: Request) -> Response:
        path = request.path_params["path"]
        name = path.removeprefix(f"{version}/")
        if name not in parts:
            raise HTTPException(404)
        kept = CURRENT if name == path else FOR_GOOD
        media_type = mimetypes.guess_type(name)[0] or "text/plain"
        # Other pages know no version; what they load then comes from the current one.
        content = f'export * from "./{version}/{name}";' if path == ELEMENT else parts[name]
        return Response(content, media_type=media_type, headers=HEADERS | OF_PARTS | kept)

    app.add_route("/console/{path:path}", part, include_in_schema=False)


def _read(folder: Path) -> dict[str, bytes]:
    """Returns the files by their paths. They are kept: what is served for good must not change meanwhile."""
    return {
        path.relative_to(folder).as_posix(): _served(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _served(path: Path) -> bytes:
    content = path.read_bytes()
    # What others wrote is served as it is, with their notices.
    if path.suffix != ".js" or "vendor" in path.parts:
        return content
    return without_comments(content.decode()).encode()


def without_comments(module: str) -> str:
    """Returns a module with empty lines in place of those that are only a comment, and without its types.

    It knows nothing of JavaScript but how lines and types begin and end: that is enough where no text has
    several lines or looks like a type.
    """
    lines = []
    within = False
    for line in module.split("\n"):
        words = line.strip()
        begins = (
            not within
            and words.startswith("/*")
            and ("*/" not in words or words.index("*/") == len(words) - 2)
        )
        comment = within or begins or words.startswith("//")
        within = (within or begins) and not words.endswith("*/")
        lines.append("" if comment else TYPE_IN_LINE.sub("", line))
    return "\n".join(lines)


def version_of(parts: Mapping[str, bytes]) -> str:
    """Returns a digest of the names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(parts.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:VERSION_CHARACTERS]
