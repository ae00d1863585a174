"""Completion scripts of shells know every command and option."""

import shutil
import subprocess
from pathlib import Path

import pytest

from c2c_lightning.cli import COMMANDS, main

pytest.importorskip("shtab")


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(["--print_shtab", shell])
    return capsys.readouterr().out


def test_bash_completes_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (bash := shutil.which("bash")) is None:
        pytest.skip("needs bash")
    (tmp_path / "lightning.bash").write_text(script("bash", capsys))

    def completed(*words: str) -> set[str]:
        """What bash offers for the last of some words."""
        quoted = " ".join(f"'{word}'" for word in words)
        code = (
            f"source {tmp_path / 'lightning.bash'}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
            "_shtab_lightning; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run([bash, "-c", code], capture_output=True, text=True, check=True)
        return {word.strip() for word in done.stdout.splitlines()}

    assert completed("lightning", "") >= set(COMMANDS)
    assert "--model.fuser.hidden_dim" in completed("lightning", "fit", "--model.fuser.h")
    assert completed("lightning", "export", "--ckpt") == {"--ckpt_path"}
    assert "--force" in completed("lightning", "config", "copy", "--f")
    assert completed("lightning", "fit", "--model.fuser.layer_alignment", "") >= {"terminal", "depth", "skip"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    assert "validate" in text
    assert "model.fuser.hidden_dim" in text


@pytest.mark.parametrize("words", [[], ["fish"]])
def test_an_unknown_shell_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--print_shtab", *words])
    assert exit_.value.code == 2
    assert "bash|zsh|tcsh" in capsys.readouterr().err
