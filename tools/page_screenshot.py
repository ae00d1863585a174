"""Takes a picture of the page of a running server in a headless Chromium.

lightning serve --fuser runs/quickstart/fuser --message_prompt 'In one sentence: {question}' &
python -m tools.page_screenshot --out docs/images/page.png
"""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Nothing but the page: no updates, no start-up requests.
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def installed_chromium() -> str | None:
    """Where a Chromium is installed; none is downloaded."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed_chromium(), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def ask_example(page: Page, url: str) -> None:
    """Open the page, ask its first example, and wait for the three answers."""
    page.goto(url)
    page.locator("#examples button").first.click()
    page.locator(".column[data-state=done]").nth(2).wait_for()


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask the first example and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000/", help="the server")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file")
    parser.add_argument("--width", type=int, default=1200, help="width of the window in pixels")
    parser.add_argument("--dark", action="store_true", help="in dark mode")
    parser.add_argument("--mismatched", action="store_true", help="with another question's cache")
    options = parser.parse_args(arguments)
    with headless_browser() as browser:
        scheme = "dark" if options.dark else "light"
        page = browser.new_page(viewport={"width": options.width, "height": 800}, color_scheme=scheme)
        ask_example(page, options.url)
        if options.mismatched:
            page.get_by_label("another question's").check()
            page.get_by_text("Cache of another question").wait_for()
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=options.out, full_page=True)


if __name__ == "__main__":
    main()
