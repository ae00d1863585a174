"""The check of the documentation site: resources of other servers and missing ones are found, links are not."""

from pathlib import Path

import pytest

from tools.site_check import main

PAGE = '<html><head><link rel="stylesheet" href="own.css"></head><body>{}</body></html>'


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="https://example.org">a link</a> <img src="own.svg"> <img src="data:image/png;base64,AA">', None),
        ('<script src="https://cdn.example.org/a.js"></script>', "https://cdn.example.org/a.js"),
        ('<img src="//example.org/a.png">', "//example.org/a.png"),
        ('<img src="none.svg">', "none.svg, which does not exist"),
    ],
)
def test_a_page(tmp_path: Path, body: str, fault: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text(PAGE.format(body))
    (tmp_path / "own.css").write_text("body {background: url('own.svg')}")
    (tmp_path / "own.svg").touch()
    assert main(tmp_path) == (0 if fault is None else 1)
    assert fault is None or fault in capsys.readouterr().out


def test_a_style_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text(PAGE.format(""))
    (tmp_path / "own.css").write_text("@font-face {src: url(https://fonts.example.org/a.woff)}")
    assert main(tmp_path) == 1
    assert "fonts.example.org" in capsys.readouterr().out


def test_no_site(tmp_path: Path) -> None:
    assert main(tmp_path) == 1
