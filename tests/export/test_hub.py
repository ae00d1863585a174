"""Upload to and download from a stand-in of the hub: what comes back equals what was sent; failures are one message."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants

from c2c_lightning.cli import main
from c2c_lightning.errors import FuserFormatError, HubError, ReportError
from c2c_lightning.export import load_fuser, save_fuser
from c2c_lightning.export.fuser_tensors import precision_free_checksum
from c2c_lightning.export.hub import push_directory
from c2c_lightning.export.results_card import write_results_card
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.export.hub_stand_in import TOKEN, HubStandIn, running
from tests.export.test_format import description, fresh

NAME = "owner/fuser"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """An empty hub, and a user who is logged in."""
    with running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        addresses = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", addresses)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        # The content store of large files has a protocol of its own; LFS is the documented one.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_fuser(tmp_path / "fuser", fresh(description()), description())


@pytest.fixture
def model(models: Path) -> C2CModel:
    receiver, sharer = load_frozen(str(models / "receiver")), load_frozen(str(models / "sharer"))
    fused = C2CModel(receiver, [sharer], FuserConfig(hidden_dim=16, intermediate_dim=16)).eval()
    fused.fuser.force_gates(is_open=True)
    return fused


def report_of(directory: Path, **changes: Any) -> dict[str, Any]:
    """A report with the fields that the card takes."""
    line = {"accuracy": 0.75, "n": 4, "ci95": [0.3, 0.95], "seconds_per_answer": 0.25}
    lines = {"receiver": {**line, "accuracy": 0.25}, "c2c": line, "c2c:mismatched": {**line, "accuracy": 0.5}}
    section = {"mode": "generate", "scoring": "anchored", "n": 4, "chance": 0.25, "responders": lines}
    section["verdict"] = {"communication": False, "p_value": 0.5, "text": "Communication not shown at p < 0.01."}
    run = {"package": "0.1.0", "device": "cpu", "fuser": str(directory)}
    run["fuser_checksums"] = [precision_free_checksum(load_fuser(directory).fuser.state_dict())]
    return {"version": 1, "run": run, "benchmarks": {"facts": section}, **changes}


def written(folder: Path, content: object) -> Path:
    path = folder / "report.json"
    path.write_text(json.dumps(content))
    return path


def test_a_model_comes_back_by_branch_and_by_revision(hub: HubStandIn, model: C2CModel) -> None:
    first = model.push_to_hub(NAME)
    before = {name: tensor.clone() for name, tensor in model.fuser.state_dict().items()}
    with torch.no_grad():
        for weight in model.fuser.parameters():
            weight.add_(1.0)
    second = model.push_to_hub(NAME, revision="next")
    assert len(hub.uploaded_by_lfs) == 2
    for revision, expected in [
        (first.oid, before),
        (None, before),
        (second.oid, model.fuser.state_dict()),
        ("next", model.fuser.state_dict()),
    ]:
        back = C2CModel.from_pretrained(NAME, revision=revision)
        assert {name: torch.equal(tensor, expected[name]) for name, tensor in back.fuser.state_dict().items()} == {
            name: True for name in expected
        }


def test_only_the_fuser_is_uploaded(hub: HubStandIn, saved: Path) -> None:
    (saved / "secrets.json").write_text("{}")
    (saved / "last.ckpt").touch()
    push_directory(saved, NAME)
    (files,) = [hub.repositories[NAME].commits[oid] for oid in [hub.repositories[NAME].branches["main"]]]
    assert sorted(files) == [".gitattributes", "README.md", "fuser_config.json", "model.safetensors"]
    assert files["model.safetensors"] == (saved / "model.safetensors").read_bytes()


def test_a_private_repository_needs_the_token_for_reading(
    hub: HubStandIn, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_directory(saved, NAME, private=True)
    assert hub.repositories[NAME].private
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FuserFormatError, match=rf"no repository {NAME} that you may read.*hf auth login"):
        load_fuser(NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_fuser(NAME).description == load_fuser(saved).description


def test_upload_without_a_token(hub: HubStandIn, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"not uploaded to owner/fuser: .*access token. Log in with `hf auth login`"):
        push_directory(saved, NAME)
    assert not hub.repositories


def test_upload_without_permission(hub: HubStandIn, saved: Path) -> None:
    hub.may_write = False
    with pytest.raises(HubError, match="does not permit this for owner/fuser"):
        push_directory(saved, NAME)


def test_a_revision_that_does_not_exist(hub: HubStandIn, saved: Path) -> None:
    push_directory(saved, NAME)
    with pytest.raises(FuserFormatError, match="owner/fuser has no revision 'v9'"):
        load_fuser(NAME, revision="v9")


def test_a_repository_that_does_not_exist(hub: HubStandIn) -> None:
    with pytest.raises(FuserFormatError, match="no repository owner/nothing that you may read"):
        load_fuser("owner/nothing")


def test_a_name_that_is_impossible(hub: HubStandIn, saved: Path) -> None:
    with pytest.raises(HubError, match="'a/b/c' is no name on the hub"):
        push_directory(saved, "a/b/c")


def test_offline(hub: HubStandIn, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = push_directory(saved, NAME)
    load_fuser(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_fuser(NAME, revision=commit.oid).description == load_fuser(saved).description  # from the cache
    with pytest.raises(FuserFormatError, match=r"HF_HUB_OFFLINE is set.*no such revision"):
        load_fuser("owner/other")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push_directory(saved, NAME)


def test_no_connection(hub: HubStandIn, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"the hub at http://127.0.0.1:9 cannot be reached"):
        push_directory(saved, NAME)
    with pytest.raises(FuserFormatError, match=r"the hub at http://127.0.0.1:9 cannot be reached"):
        load_fuser("owner/other")


def test_a_damaged_fuser_is_not_uploaded(hub: HubStandIn, saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(FuserFormatError, match="may be cut short"):
        push_directory(saved, NAME)
    assert not hub.repositories


def test_the_card_shows_results_and_controls(hub: HubStandIn, model: C2CModel, tmp_path: Path) -> None:
    report = written(tmp_path, report_of(model.save_pretrained(tmp_path / "fuser")))
    commit = model.push_to_hub(NAME, report=report)
    card = hub.repositories[NAME].commits[commit.oid]["README.md"].decode()
    assert "| `c2c:mismatched` | 50.0 | 30.0-95.0 | 250.0 |" in card
    assert "Communication not shown at p < 0.01." in card
    data = ModelCard(card).data
    assert [(result.dataset_name, result.metric_value) for result in data.eval_results] == [("facts", 0.75)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"fuser_checksums": ["sha256:0"]}}, "measured other weights"),
        ({"benchmarks": {}}, "no benchmarks"),
        ({"benchmarks": {"facts": {"responders": {}}}}, "no complete results of C2C"),
    ],
)
def test_a_report_that_does_not_belong_to_the_fuser(saved: Path, change: dict[str, Any], message: str) -> None:
    before = (saved / "README.md").read_text()
    with pytest.raises(ReportError, match=message):
        write_results_card(saved, written(saved.parent, report_of(saved, **change)))
    assert (saved / "README.md").read_text() == before
    with pytest.raises(ReportError, match="missing or no JSON object"):
        write_results_card(saved, saved / "none.json")


def test_a_half_precision_file_is_the_same_fuser(saved: Path) -> None:
    fuser = load_fuser(saved).fuser.half()
    half = save_fuser(saved.parent / "half", fuser, description())
    write_results_card(half, written(half, report_of(half)))
    assert "| `c2c` | 75.0 |" in (half / "README.md").read_text()


def test_results_without_an_upload_say_where_they_are(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = written(saved.parent, report_of(saved))
    with caplog.at_level(logging.INFO):
        main(["export", "--fuser", str(saved), "--report", str(report)])
    assert f"results written to {saved / 'README.md'}" in caplog.text


def test_the_command(
    hub: HubStandIn, saved: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    report = written(saved.parent, report_of(saved))
    caplog.set_level(logging.DEBUG)
    options = ["--report", str(report), "--push", NAME, "--private", "--revision", "v1"]
    main(["export", "--fuser", str(saved), *options])
    repository = hub.repositories[NAME]
    assert repository.private
    assert b"`c2c:mismatched`" in repository.commits[repository.branches["v1"]]["README.md"]
    assert b"not recorded" not in repository.commits[repository.branches["v1"]]["README.md"].lower()
    shown = capsys.readouterr()
    assert TOKEN not in shown.out + shown.err + caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --ckpt_path"),
        (["--fuser", "x", "--ckpt_path", "y"], "either --ckpt_path"),
        (["--ckpt_path", "y"], "belong together"),
        (["--fuser", "x"], "add --report FILE, --push OWNER/NAME or --prune RULE"),
        (["--fuser", "x", "--report", "r", "--private"], "belong to --push"),
    ],
)
def test_options_that_do_not_belong_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["export", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
