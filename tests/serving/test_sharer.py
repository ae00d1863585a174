"""A sharer in another process: answers equal those with a local sharer; keys, limits, damage and absence are errors."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from c2c_lightning.channel.sharer_cache import SharerCache
from c2c_lightning.channel.sharer_client import SharerClient, SharerMissingError
from c2c_lightning.channel.sharer_link import KEY_VARIABLE
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import ChannelError, PairMismatchError
from c2c_lightning.fuser.channel_config import ChannelConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.remote_lm import RemoteLM
from c2c_lightning.responders.single_model import SharerOnly
from c2c_lightning.serving.http_server import HTTPServer
from c2c_lightning.serving.server_settings import ServerSettings
from c2c_lightning.serving.sharer_app import create_sharer_app
from tests.model.test_families import prompts
from tests.model.test_fusion_modes import SETTINGS, build
from tests.serving.served import catalogue, running, running_app
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def local() -> C2CModel:
    return build("gemma3", "qwen2", "prefill")


@pytest.fixture(scope="module")
def server(local: C2CModel) -> Iterator[HTTPServer]:
    with running_app(create_sharer_app(local.sharers[0])) as started:
        yield started


def remote_model(local: C2CModel, url: str, **choices: Any) -> C2CModel:
    spec = replace(local.sharers[0].spec, url=url, **choices)
    sharer = RemoteLM(local.sharers[0].tokenizer, spec)
    model = C2CModel(local.receiver, [sharer], local.fuser.config).eval()
    model.fuser.load_state_dict(local.fuser.state_dict())
    sharer.send_layers(model.fuser.sharers[0].layer_map)
    return model


def logits(model: C2CModel, prompt: PromptBatch) -> torch.Tensor:
    out = model.generate(prompt, return_dict_in_generate=True, output_logits=True, **SETTINGS)
    return torch.stack(out.logits)


@pytest.mark.parametrize("mode", ["prefill", "prompt"])
@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_answers_equal_those_with_a_local_sharer(server: HTTPServer, mode: str, bits: int) -> None:
    local, prompt = build("gemma3", "qwen2", mode, channel=ChannelConfig(bits)), prompts()
    remote = remote_model(local, server.url, bits=bits)
    assert torch.equal(logits(remote, prompt), logits(local, prompt))


def test_only_read_layers_and_tokens_are_sent(server: HTTPServer, local: C2CModel) -> None:
    remote, prompt = remote_model(local, server.url), prompts()
    (stack,) = remote.prefill_sharers(prompt)
    assert stack is not None
    is_read = prompt.sharers[0].is_read(with_last=False)[:, : stack[0].num_tokens]
    (own,) = local.prefill_sharers(prompt)
    assert own is not None
    for n, layer in enumerate(stack):
        mapped = n in {m for m in local.fuser.sharers[0].layer_map}
        assert torch.equal(layer.keys, (own[n].keys * mapped).where(is_read[:, None, :, None], 0))


def test_growing_prompts_reuse_their_prefix(server: HTTPServer, local: C2CModel) -> None:
    remote = remote_model(local, server.url)
    short = [{"role": "user", "content": "What is the capital of Arlen?"}]
    long = [*short, {"role": "assistant", "content": "Velmora."}, {"role": "user", "content": "Name a river."}]
    kept = remote.prefill(remote.encode([short]))
    prompt = remote.encode([long])
    assert torch.equal(
        torch.stack(
            remote.generate(prompt, prefix=kept, return_dict_in_generate=True, output_logits=True, **SETTINGS).logits
        ).argmax(-1),
        logits(local, prompt).argmax(-1),
    )


OVERLAP = """
import time
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.serving.sharer_app import create_sharer_app
from tests.model.test_families import prompts
from tests.model.test_fusion_modes import build
from tests.serving.served import catalogue, running, running_app
from tests.tiny import tiny_tokenizer
from tests.serving.test_sharer import remote_model

local = build("gemma3", "qwen2", "prefill")
with running_app(create_sharer_app(local.sharers[0])) as server:
    remote, order = remote_model(local, server.url), []
    send, prefill = remote.sharers[0].client.prefill, FrozenLM.prefill

    def slow(request):
        time.sleep(0.5)
        order.append("sharer")
        return send(request)

    def recorded(lm, *args):
        if lm is remote.receiver:
            order.append("receiver")
        return prefill(lm, *args)

    remote.sharers[0].client.prefill, FrozenLM.prefill = slow, recorded
    remote.prefill(prompts())
    print(*order)
"""


@pytest.mark.slow
def test_the_receiver_prefills_while_the_sharer_does() -> None:
    # In a process of its own: the type checks of the tests look into the cache, and so wait for it.
    done = subprocess.run([sys.executable, "-c", OVERLAP], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["receiver", "sharer"]


def test_a_missing_sharer_is_an_error_or_is_left_out_and_reported(local: C2CModel) -> None:
    with running_app(create_sharer_app(local.sharers[0])) as server:
        refusing = remote_model(local, server.url)
        leaving = remote_model(local, server.url, on_missing="receiver_alone")
    for model in (refusing, leaving):
        model.sharers[0].client.attempts = 1  # type: ignore[attr-defined]
    prompt = prompts()
    with pytest.raises(SharerMissingError, match=r"does not answer .* receiver_alone"):
        refusing.generate(prompt, **SETTINGS)
    fused = leaving.prefill(prompt)
    assert fused.missing == (0,)
    assert torch.equal(logits(leaving, prompt), logits_without_sharers(local, prompt))


def test_a_served_answer_names_the_missing_sharers(local: C2CModel) -> None:
    with running(catalogue(without_its_sharer(local))) as server:
        body = {"model": "c2c", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["choices"][0]["c2c"]["missing_sharers"] == [0]


def without_its_sharer(local: C2CModel) -> C2CModel:
    """A pair whose sharer was in another process, which has ended; it then answers without."""
    with running_app(create_sharer_app(local.sharers[0])) as server:
        model = remote_model(local, server.url, on_missing="receiver_alone")
    model.sharers[0].client.attempts = 1  # type: ignore[attr-defined]
    return model


def logits_without_sharers(model: C2CModel, prompt: PromptBatch) -> torch.Tensor:
    out = model.generate(prompt, active_sharers=[], return_dict_in_generate=True, output_logits=True, **SETTINGS)
    return torch.stack(out.logits)


def test_the_key_is_needed_where_one_is_set(local: C2CModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_app(create_sharer_app(local.sharers[0], ServerSettings(api_key="right"))) as server:
        for given in (None, "wrong"):
            monkeypatch.setenv(KEY_VARIABLE, given) if given else monkeypatch.delenv(KEY_VARIABLE, raising=False)
            with pytest.raises(ChannelError, match="key is missing or wrong"):
                SharerClient(server.url).info()
        monkeypatch.setenv(KEY_VARIABLE, "right")
        assert SharerClient(server.url).info().geometry == local.sharers[0].geometry


def test_another_model_behind_the_address_is_noticed(server: HTTPServer, local: C2CModel) -> None:
    sharer = local.sharers[0]
    with pytest.raises(PairMismatchError, match="tokenizer or chat template"):
        RemoteLM(tiny_tokenizer("header"), replace(sharer.spec, url=server.url))
    remote = remote_model(local, server.url)
    changed = remote.sharers[0]
    assert isinstance(changed, RemoteLM)
    changed.info = replace(changed.info, fingerprint="0" * 64)
    with pytest.raises(ChannelError, match="another model than before"):
        remote.prefill(prompts())


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"layers": [99]}, 400, "layers [99] do not exist"),
        ({"layers": "0"}, 400, "layers"),
        ({"input_ids": [[5, 99999]]}, 400, "token ids"),
        ({"input_ids": [[5]]}, 400, "not a table"),
        ({"input_ids": []}, 400, "input_ids"),
        ({"is_read": [[0, 2]]}, 400, "other than 0 and 1"),
        ({"position_ids": [[-1, 0]]}, 400, "position_ids"),
        ({"bits": 5}, 400, "bits"),
        ({"path": "/etc/passwd"}, 400, "path"),
    ],
)
def test_bad_requests_are_refused_and_the_server_goes_on(
    server: HTTPServer, change: dict[str, Any], status: int, message: str
) -> None:
    good = {
        "input_ids": [[5, 6]], "attention_mask": [[1, 1]], "position_ids": [[0, 1]], "is_read": [[1, 0]], "layers": [0],
    }  # fmt: skip
    refused = httpx.post(f"{server.url}/v1/prefill", json={**good, **change})
    assert refused.status_code == status
    assert message in refused.json()["error"]["message"]
    accepted = httpx.post(f"{server.url}/v1/prefill", json=good)
    assert SharerCache.from_bytes(accepted.content).token.tolist() == [0]


def test_sizes_are_limited_on_both_sides(local: C2CModel, server: HTTPServer) -> None:
    with running_app(create_sharer_app(local.sharers[0], max_bytes=10)) as small:
        remote = remote_model(local, small.url)
        with pytest.raises(ChannelError, match="more than 10"):
            remote.prefill(prompts())
    remote = remote_model(local, server.url)
    remote.sharers[0].client.max_bytes = 2000  # type: ignore[attr-defined]
    with pytest.raises(ChannelError, match="longer than 2000 bytes"):
        remote.prefill(prompts())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "ftp://127.0.0.1", "http://["])
def test_no_sharer_at_an_address(url: str) -> None:
    with pytest.raises(ChannelError, match=r"does not answer|no address"):
        SharerClient(url, attempts=1).info()


def test_no_sharer_behind_another_server(tmp_path: Path) -> None:
    from tests.serving.served import catalogue, running

    with running(catalogue()) as other, pytest.raises(ChannelError, match=r"refuses the request|not describe a sharer"):
        SharerClient(other.url).info()


def test_a_remote_sharer_neither_answers_nor_decodes(server: HTTPServer, local: C2CModel) -> None:
    remote = remote_model(local, server.url)
    with pytest.raises(ChannelError, match="cannot answer by itself"):
        SharerOnly(remote.sharers[0])
    remote.fuser.config = replace(remote.fuser.config, fusion_mode="decode")
    with pytest.raises(ChannelError, match="fusion mode `decode`"):
        remote.generate(prompts(), **SETTINGS)


def test_a_fuser_directory_is_loaded_with_the_address_of_its_sharer(local: C2CModel, tmp_path: Path) -> None:
    local.sharers[0].model.save_pretrained(tmp_path / "sharer")
    local.sharers[0].tokenizer.save_pretrained(tmp_path / "sharer")
    sharer = load_frozen(str(tmp_path / "sharer"))
    own = C2CModel(local.receiver, [sharer], local.fuser).eval()
    directory = own.save_pretrained(tmp_path / "fuser")
    with running_app(create_sharer_app(sharer)) as server:
        for given in (server.url, LMSpec(url=server.url, bits=32)):
            model = C2CModel.from_pretrained(directory, receiver=local.receiver, sharers=given)
            assert torch.equal(logits(model, prompts()), logits(own, prompts()))
            assert isinstance(model.sharers[0], RemoteLM)
            assert model.sharers[0].layers == frozenset(m for m in own.fuser.sharers[0].layer_map if m is not None)
