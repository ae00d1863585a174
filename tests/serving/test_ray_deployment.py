"""Two replicas of the server behind Ray Serve on this machine."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.serving.served import ask, until

pytestmark = pytest.mark.slow
URL = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def fuser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fuser of the embedded pair, not trained."""
    torch.manual_seed(0)
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, gate_init=1.0, token_alignment="span")
    receiver, sharer = (load_frozen(f"embedded:{name}") for name in ("receiver", "sharer"))
    return C2CModel(receiver, [sharer], config).save_pretrained(tmp_path_factory.mktemp("fuser") / "fuser")


@pytest.fixture(scope="module")
def replicas(fuser: Path) -> Iterator[None]:
    serve = pytest.importorskip("ray.serve")
    import ray

    from c2c_lightning.serving.ray_deployment import build

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8765})
        serve.run(build({"fuser": str(fuser), "replicas": 2}))
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def test_two_replicas_answer_as_one_model(replicas: None, fuser: Path) -> None:
    model = C2CModel.from_pretrained(fuser)
    question = "What is the capital of Nepi?"
    expected = model.chat([ask(question)], max_new_tokens=8, do_sample=False)[0]
    seen = set()

    def both_have_answered() -> bool:
        body = {"model": "c2c", "messages": ask(question), "max_tokens": 8}
        answer = httpx.post(f"{URL}/v1/chat/completions", json=body, timeout=60)
        assert answer.json()["choices"][0]["message"]["content"].strip() == expected
        created = re.search(r"c2c_batch_size_created ([\d.e+]+)", httpx.get(f"{URL}/metrics", timeout=60).text)
        seen.add(created and created[1])
        return len(seen) == 2

    until(both_have_answered, 60)
    assert [m["id"] for m in httpx.get(f"{URL}/v1/models").json()["data"]] == ["receiver", "sharer", "t2t", "c2c"]


def test_streams_pass_through(replicas: None) -> None:
    body = {"model": "c2c", "messages": ask("What is the food of Nepi?"), "max_tokens": 8, "stream": True}
    with httpx.stream("POST", f"{URL}/v1/chat/completions", json=body, timeout=60) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert len(lines) > 3


def test_refusals_pass_through(replicas: None) -> None:
    answer = httpx.post(f"{URL}/v1/chat/completions", json={"model": "other", "messages": ask("Hi")}, timeout=60)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
