"""`lightning init`: checks a pair and its rows, and writes a configuration that trains, or nothing."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from c2c_lightning import embedded
from c2c_lightning.cli import main
from c2c_lightning.commands.first_config import FirstConfig
from c2c_lightning.data.sources.detect import detect_source
from c2c_lightning.fuser.low_rank import check_rank
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.model.lm_spec import LMSpec

ROWS = Path(embedded.facts("train_chat.jsonl")).read_text().splitlines()[:50]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with 50 rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("\n".join(ROWS) + "\n")
    return tmp_path


def init(*options: str, receiver: str = "embedded:receiver", data: str = "rows.jsonl") -> None:
    main(["init", "--receiver", receiver, "--sharer", "embedded:sharer", "--data", data, *options])


def fails(capsys: pytest.CaptureFixture[str], code: int, *options: str, **choices: str) -> str:
    """The one message; nothing is written."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as exit_:
        init(*options, **choices)
    assert exit_.value.code == code
    assert sorted(Path().rglob("*")) == before
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error[error.index("error: ") :]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answers at a terminal, in order."""
    given: list[str] = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def answer(question: str) -> str:
        if not given:
            raise EOFError
        return given.pop(0)

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", answer)
    return given


def test_the_configuration_is_short_and_trains(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init("--output", "mine.yaml")
    text = (folder / "mine.yaml").read_text()
    assert len(text.splitlines()) <= 20
    fuser = yaml.safe_load(text)["model"]["fuser"]
    assert (fuser["kind"], fuser["options"]) == ("low_rank", {"rank": 32})
    out = capsys.readouterr().out
    assert re.search(r"sharer +token alignment `span`: 100.0% .* in 50 rows", out)
    assert re.search(r"Fuser of [\d.]+ M parameters .* 70 steps of 8 rows, .* about \d+ (s|min) on this cpu", out)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.yaml", "rows.jsonl"]
    few = ["--trainer.max_steps", "3", "--trainer.val_check_interval", "3", "--data.cache_dir", "cache"]
    main(["fit", "--config", "mine.yaml", *few, "--trainer.enable_progress_bar", "false"])
    assert (folder / "runs" / "mine" / "fuser" / "model.safetensors").is_file()


@pytest.mark.parametrize(("kv_width", "rank"), [(2048, 128), (1024, 128), (192, 96), (64, 32), (14, 6), (3, 2), (1, 2)])
def test_the_rank_fits_the_receivers_heads(kv_width: int, rank: int) -> None:
    config = FirstConfig(LMSpec("a"), (LMSpec("b"),), detect_source("rows.jsonl"), 50, kv_width, "auto", "runs")
    assert config.fuser.options == {"rank": rank}
    check_rank(rank, LayerGeometry(1, kv_width, kv_width))


def test_models_with_one_tokenizer_share_their_tokens_and_base_models_get_a_template(folder: Path) -> None:
    shutil.copytree(embedded.path("sharer"), folder / "base")
    (folder / "base" / "chat_template.jinja").unlink()
    main(["init", "--receiver", "base", "--sharer", "base", "--sharer", "base", "--data", "rows.jsonl"])
    config = yaml.safe_load((folder / "c2c.yaml").read_text())
    assert config["model"]["fuser"]["token_alignment"] == "auto"
    assert config["model"]["receiver"] == {"path": "base", "prompt_template": "question_answer"}
    assert len(config["model"]["sharers"]) == 2


def test_it_asks_in_a_terminal_until_the_answers_can_be_used(
    folder: Path, answers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    answers += ["/nowhere/model", "embedded:receiver", "embedded:sharer", "", "missing.jsonl", "rows.jsonl"]
    main(["init"])
    errors = capsys.readouterr().err
    assert "/nowhere/model" in errors
    assert "missing.jsonl" in errors
    assert (folder / "c2c.yaml").is_file()


def test_the_end_of_the_input_writes_nothing(folder: Path, answers: list[str]) -> None:
    answers += ["embedded:receiver"]
    with pytest.raises(SystemExit) as exit_:
        main(["init"])
    assert exit_.value.code == 130
    assert [path.name for path in folder.iterdir()] == ["rows.jsonl"]


def test_without_a_terminal_missing_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["init", "--receiver", "embedded:receiver"])
    assert exit_.value.code == 2
    assert "--sharer and --data" in capsys.readouterr().err


def test_an_existing_file_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c2c.yaml").write_text("mine")
    assert "--force" in fails(capsys, 1)
    assert (folder / "c2c.yaml").read_text() == "mine"
    init("--force")
    assert "lightning init" in (folder / "c2c.yaml").read_text()


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "/nowhere/model" in fails(capsys, 1, receiver="/nowhere/model")


def test_a_model_whose_weights_are_cut_short(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(embedded.path("receiver"), folder / "cut")
    weights = folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "damaged or incomplete" in fails(capsys, 1, receiver="cut")


def test_a_model_whose_cache_cannot_be_fused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(embedded.path("receiver"), folder / "mamba")
    (folder / "mamba" / "config.json").write_text(json.dumps({"model_type": "mamba", "num_hidden_layers": 1}))
    assert "mamba" in fails(capsys, 1, receiver="mamba")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows.jsonl"),
        ("{broken\n" * 3, "cannot be read"),
        ("\n".join([*ROWS[:20], *["{broken"] * 5]), "5 of the first 25 rows"),
        ('{"messages": [{"role": "user", "content": "no answer"}]}\n', "1 of the first 1 rows"),
        ('{"frage": "Hi?"}\n', "`frage`"),
    ],
)
def test_rows_that_cannot_be_read(text: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rows.jsonl").write_text(text)
    assert message in fails(capsys, 1)


def test_rows_of_which_nothing_would_be_fused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {**json.loads(ROWS[0]), "sharer_messages": [{"role": "user", "content": "Another text altogether."}]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert fails(capsys, 1)
