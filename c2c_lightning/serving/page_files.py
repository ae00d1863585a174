"""The page at `GET /`: static files of the package, read once; a request chooses among them by name only."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import FastAPI, Header, Response
from starlette.exceptions import HTTPException

FOLDER = files("c2c_lightning.serving") / "page"
INDEX = "index.html"

# Named here: the table of the operating system may call scripts plain text, which browsers refuse as modules.
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Browsers keep files, and ask whether they have changed: a new version of the package is seen at once.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page.

    Attributes:
        content: its bytes.
        media_type: what browsers take it for.
        etag: changes with the content.
    """

    content: bytes
    media_type: str
    etag: str

    def response(self, known_etag: str | None) -> Response:
        """The file, or 304 where the browser has it."""
        headers = {**HEADERS, "ETag": self.etag}
        if known_etag == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def page_files() -> dict[str, PageFile]:
    """All files of the page, by name."""
    return {item.name: _page_file(item.name, item.read_bytes()) for item in FOLDER.iterdir() if item.is_file()}


def _page_file(name: str, content: bytes) -> PageFile:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return PageFile(content, MEDIA_TYPES[PurePosixPath(name).suffix], etag)


def add_page(app: FastAPI) -> None:
    """Serve the page at `/`, its other files below `/page/`."""
    known = page_files()

    def page_file(name: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
        if name not in known:
            raise HTTPException(404, "Not Found")
        return known[name].response(if_none_match)

    def index(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        return page_file(INDEX, if_none_match)

    for path, endpoint in (("/", index), ("/page/{name}", page_file)):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], response_model=None, include_in_schema=False)
