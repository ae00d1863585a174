"""Checks a built documentation site: `python -m tools.site_check DIR` fails if a page loads anything from elsewhere."""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Links that a reader follows (`<a href>`) may lead anywhere; these are loaded without being asked for.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "link": "href"}


class PageResources(HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a resource."""
        values = dict(attrs)
        # `canonical`, `next` and the like are links for readers and crawlers.
        if tag == "link" and not {"stylesheet", "icon", "preload"} & set((values.get("rel") or "").split()):
            return
        address = values.get(LOADED.get(tag, ""))
        if address:
            self.found.append(address)


def faults(site: Path) -> Iterator[str]:
    """Resources of other servers, and resources that the site lacks."""
    for page in sorted(site.rglob("*.html")):
        parser = PageResources()
        parser.feed(page.read_text(encoding="utf-8"))
        for address in parser.found:
            parts = urlsplit(address)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                yield f"{page.relative_to(site)} loads {address}"
            elif not (page.parent / unquote(parts.path)).exists():
                yield f"{page.relative_to(site)} loads {address}, which does not exist"
    for sheet in sorted(site.rglob("*.css")):
        for address in re.findall(r"(?:url\(|@import )\s*['\"]?((?:https?:)?//[^'\")\s]+)", sheet.read_text("utf-8")):
            yield f"{sheet.relative_to(site)} loads {address}"


def main(site: Path) -> int:
    """Print all faults; 1 if there are any, or if there is no site."""
    found = list(faults(site)) if (site / "index.html").is_file() else [f"there is no site in {site}"]
    print("\n".join(found) or f"{site}: {len(list(site.rglob('*.html')))} pages load nothing from elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
