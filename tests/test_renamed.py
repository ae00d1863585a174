"""Import paths of earlier versions."""

import importlib
import sys

import pytest

from c2c_lightning._renamed import MODULES


@pytest.mark.parametrize(("old", "new"), sorted(MODULES.items()))
def test_an_old_path_names_its_successor(old: str, new: str) -> None:
    sys.modules.pop(f"c2c_lightning.{old}", None)
    with pytest.warns(DeprecationWarning, match=new):
        proxy = importlib.import_module(f"c2c_lightning.{old}")
    module = importlib.import_module(f"c2c_lightning.{new}")
    for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
        assert getattr(proxy, name) is getattr(module, name)


def test_an_unknown_path_is_still_unknown() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("c2c_lightning.model.no_such_module")


def test_a_renamed_class_is_still_exported() -> None:
    import c2c_lightning

    with pytest.warns(DeprecationWarning, match="ChatSession"):
        assert c2c_lightning.Dialogue is c2c_lightning.ChatSession
