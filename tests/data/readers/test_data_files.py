"""Folders, patterns and splits: the files that a path names."""

import json
import logging
import os
from pathlib import Path

import pytest
from datasets import Dataset

from c2c_lightning.data.readers.files import data_fingerprint, load_rows, read_rows
from c2c_lightning.data.sources import Messages
from c2c_lightning.errors import DataError
from tests.data.rows import chat_rows


def write(path: Path, text: str = "") -> Path:
    """A file of one row with a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        Dataset.from_list([{"text": text}]).to_parquet(str(path))
    elif path.suffix == ".csv":
        path.write_text(f"text\n{text}\n")
    else:
        path.write_text(json.dumps({"text": text}) + "\n")
    return path


def texts(path: Path | str, split: str = "train", **options: str) -> list[str]:
    return [row["text"] for _, row in read_rows(str(path), split=split, **options)]


FOLDERS = {
    "JSON lines": ("train.jsonl", "test.jsonl"),
    "Parquet": ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
    "a checkout from the hub": ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
    "splits of other names": ("data/train_sft-00000-of-00001.parquet", "data/test_sft-00000-of-00001.parquet"),
    "a folder for each split": ("train/a.csv", "test/a.csv"),
    "upper case": ("train.JSONL", "test.JSONL"),
    "names in upper case": ("TRAIN.jsonl", "Test.jsonl"),
}


@pytest.mark.parametrize("names", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_gives_the_files_of_one_split(names: tuple[str, str], tmp_path: Path) -> None:
    splits = ["train_sft", "test_sft"] if "_sft" in names[0] else ["train", "test"]
    for name, split in zip(names, splits, strict=True):
        write(tmp_path / name, split)
    for split in splits:
        assert texts(tmp_path, split) == [split]
    with pytest.raises(DataError, match=r"has no split `validation`; it has `\w+`, `\w+`\. Set `split`"):
        texts(tmp_path, "validation")
    assert data_fingerprint(str(tmp_path), splits[0]) != data_fingerprint(str(tmp_path), splits[1])


@pytest.mark.parametrize("form", ["{}Set", "my{}", "{}Set1"])
def test_names_in_camel_case_name_their_split(form: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        word = split.capitalize() if form.startswith("my") else split
        write(tmp_path / f"{form.format(word)}.jsonl", split)
    for split in ("train", "test"):
        assert texts(tmp_path, split) == [split]
        assert texts(tmp_path / "*.jsonl", split) == [split]


def test_a_name_that_is_too_long_for_a_file() -> None:
    with pytest.raises(DataError):
        load_rows("a" * 300)


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(DataError, match="path of the data is empty"):
        load_rows("")


def test_a_pattern_gives_the_files_of_one_split(tmp_path: Path) -> None:
    for name in ("train_1", "train_2", "test_1"):
        write(tmp_path / f"{name}.jsonl", name)
    assert texts(tmp_path / "*.jsonl") == ["train_1", "train_2"]
    assert texts(tmp_path / "*.jsonl", "test") == ["test_1"]
    # A pattern, or a file, of one split needs no `split`.
    assert texts(tmp_path / "test*.jsonl") == texts(tmp_path / "test_1.jsonl") == ["test_1"]


def test_files_without_a_split_beside_files_with_one_are_refused_or_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train", "more", "test"):
        write(tmp_path / f"{name}.jsonl", name)
    with pytest.raises(DataError, match=r"more\.jsonl, whose split is not clear"):
        texts(tmp_path / "*.jsonl")
    with caplog.at_level(logging.WARNING):
        assert texts(tmp_path) == ["train"]
    assert "files of no split are not read: more.jsonl" in caplog.text


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_that_names_no_split_is_read_whole(split: str, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "a")
    write(tmp_path / "b.jsonl", "b")
    assert texts(tmp_path, split) == ["a", "b"]


def test_the_data_card_of_a_folder_says_which_files(tmp_path: Path) -> None:
    for subset in ("main", "other"):
        for split in ("train", "test"):
            write(tmp_path / subset / f"{split}.jsonl", f"{subset} {split}")
    card = "".join(f"- config_name: {name}\n  data_files: '{name}/train.jsonl'\n" for name in ("main", "other"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
    assert texts(tmp_path, subset="other") == ["other train"]
    with pytest.raises(DataError, match="other"):
        texts(tmp_path)


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "folder" / "a.jsonl", "a")
    Dataset.from_list([{"text": "a"}]).save_to_disk(str(tmp_path / "saved"))
    for path in ("~/folder/a.jsonl", "~/folder", "~/folder/*.jsonl", "~/saved"):
        assert texts(path) == ["a"]
        assert data_fingerprint(path)


def test_descriptions_of_a_saved_data_set_are_no_rows(tmp_path: Path) -> None:
    Dataset.from_list([{"text": "a"}]).save_to_disk(str(tmp_path / "train"))
    assert texts(tmp_path / "train") == ["a"]
    assert texts(tmp_path / "train" / "*.arrow") == ["a"]
    for path in ("train/*.json", "train/state.json", "train/dataset_info.json"):
        with pytest.raises(DataError, match=r"no data at|must be JSON"):
            texts(tmp_path / path)
    write(tmp_path / "plain" / "a.jsonl", "a")
    write(tmp_path / "plain" / "dataset_info.json", "no row")
    assert texts(tmp_path / "plain") == ["a"]


def test_links_and_pipes_are_named(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match=r"link\.jsonl` is a link to .*gone\.jsonl`, which does not exist"):
        texts(tmp_path / "link.jsonl")
    with pytest.raises(DataError, match=r"pipe\.jsonl` is no ordinary file"):
        texts(tmp_path / "pipe.jsonl")


def test_a_source_reads_its_split(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test")):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(chat_rows(1, number)[0]))
    assert Messages(str(tmp_path)).fingerprint() != Messages(str(tmp_path), split="test").fingerprint()
    assert len(load_rows(str(tmp_path), "test")) == 1  # type: ignore[arg-type]
