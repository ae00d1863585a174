"""The model of lm-evaluation-harness on local tasks, compared with HFLM and with the responders."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.cli import main
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.responder_factory import ModelBundle

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from c2c_lightning.evaluation.lm_eval_contexts import cut
from c2c_lightning.evaluation.lm_eval_model import ResponderLM

CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
FREE = """
task: tiny_free
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: generate_until
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["e"], max_gen_toks: 6, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture
def models(c2c: C2CModel) -> ModelBundle:
    return ModelBundle(c2c.receiver, c2c.sharers, c2c)


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskManager:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {"question": f"{n} + {n}?", "choices": [str(2 * n), f"about {n}", "river"], "answer": n % 3} for n in range(5)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("choice", CHOICE), ("free", FREE)):
        (folder / f"{name}.yaml").write_text(text.format(data=data))
    return TaskManager(include_path=str(folder), include_defaults=False)


def run(model: Any, tasks: TaskManager, **more: Any) -> dict[str, Any]:
    names = ["tiny_choice", "tiny_free"]
    result: dict[str, Any] = simple_evaluate(
        model=model, tasks=names, task_manager=tasks, bootstrap_iters=0, log_samples=True, **more
    )
    return result


def responses(result: dict[str, Any], task: str) -> list[Any]:
    return [sample["filtered_resps"] for sample in sorted(result["samples"][task], key=lambda s: s["doc_id"])]


@pytest.mark.parametrize("chat", [False, True])
def test_receiver_gives_the_results_of_hflm(models: ModelBundle, tasks: TaskManager, chat: bool) -> None:
    pytest.importorskip("accelerate")  # HFLM imports it
    from lm_eval.models.huggingface import HFLM

    ours = run(ResponderLM(responder="receiver", models=models, batch_size=2), tasks, apply_chat_template=chat)
    lm = HFLM(pretrained=models.receiver.model, tokenizer=models.receiver.tokenizer, device="cpu", max_length=512)
    theirs = run(lm, tasks, apply_chat_template=chat)
    for mine, other in zip(responses(ours, "tiny_choice"), responses(theirs, "tiny_choice"), strict=True):
        # HFLM moves the line break that ends a chat template into every continuation, which adds a constant.
        shift = float(other[0][0]) - float(mine[0][0]) if chat else 0.0
        for (value, _), (expected, _) in zip(mine, other, strict=True):
            assert float(value) == pytest.approx(float(expected) - shift, abs=1e-4)
    assert responses(ours, "tiny_free") == responses(theirs, "tiny_free")
    assert ours["results"]["tiny_choice"]["acc,none"] == theirs["results"]["tiny_choice"]["acc,none"]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("responder", ["c2c", "t2t", "routing", "sharer"])
def test_every_responder_runs(models: ModelBundle, tasks: TaskManager, responder: str, chat: bool) -> None:
    lm = ResponderLM(responder=responder, models=models, message_max_new_tokens=4)
    result = run(lm, tasks, apply_chat_template=chat, limit=2)
    assert len(responses(result, "tiny_choice")) == 2
    assert all("e" not in text for [text] in responses(result, "tiny_free"))


def test_receiver_loglikelihoods_against_full_passes(models: ModelBundle) -> None:
    lm, tokenizer = ResponderLM(responder="receiver", models=models), models.receiver.tokenizer
    pairs = [("the river", " bends"), ("the river", " stands still"), ("12 + 34 =", " 46")]
    found = lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs])
    for (context, continuation), (value, _) in zip(pairs, found, strict=True):
        start = len(tokenizer.encode(context, add_special_tokens=False))
        ids = torch.tensor([tokenizer.encode(context + continuation, add_special_tokens=False)])
        logits = models.receiver.model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        assert value == pytest.approx(float(logits.gather(1, ids[0, start:, None]).sum()), abs=1e-4)


def test_c2c_in_chat_is_the_responder_itself(models: ModelBundle, c2c: C2CModel) -> None:
    lm = ResponderLM(models=models)
    conversation = [{"role": "user", "content": "Why does the river bend?"}]
    context = lm.apply_chat_template(conversation)
    request = Instance("loglikelihood", {}, (context, "Velmora"), 0)
    expected = C2CResponder(c2c).score([conversation], [["Velmora"]])[0].log_probabilities[0]
    assert lm.loglikelihood([request, request]) == [(pytest.approx(expected, abs=1e-5), False)] * 2


@pytest.mark.parametrize("context", ["", "the river bends " * 90, "Why? " * 300])
def test_empty_and_long_contexts_are_scored_as_in_hflm(models: ModelBundle, context: str) -> None:
    pytest.importorskip("accelerate")
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=models.receiver.model, tokenizer=models.receiver.tokenizer, device="cpu", max_length=512)
    ours = ResponderLM(responder="receiver", models=models)
    pairs = [(context, " Velmora"), (context, " the river"), ("a city", " bends")]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    for (value, greedy), (other, their_greedy) in zip(ours.loglikelihood(requests), expected, strict=True):
        assert (value, greedy) == (pytest.approx(other, abs=1e-4), their_greedy)
    until = [Instance("generate_until", {}, (context, {"until": ["e"], "max_gen_toks": 6, "do_sample": False}), 0)]
    if context:
        assert ours.generate_until(until) == theirs.generate_until(until, disable_tqdm=True)
    else:
        assert len(ours.generate_until(until)) == 1


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("responder", ["c2c", "t2t", "routing", "sharer"])
def test_long_contexts_are_truncated_for_every_responder(
    models: ModelBundle, responder: str, chat: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lm = ResponderLM(responder=responder, models=models, message_max_new_tokens=4)
    text = "the river bends " * 150 + "Why?"
    messages = [{"role": "user", "content": "Hm. " * 200}, {"role": "assistant", "content": "No."}]
    context = lm.apply_chat_template([*messages, {"role": "user", "content": text}]) if chat else text
    scores = [Instance("loglikelihood", {}, (given, " Velmora"), 0) for given in (context, context + "?")]
    assert len(lm.loglikelihood(scores if not chat else scores[:1])) == len(scores if not chat else scores[:1])
    assert len(lm.generate_until([Instance("generate_until", {}, (context, {"max_gen_toks": 3}), 0)])) == 1
    assert "context" in caplog.text


def test_trailing_spaces_of_a_context_belong_to_the_continuation(models: ModelBundle) -> None:
    lm = ResponderLM(responder="receiver", models=models)
    requests = [Instance("loglikelihood", {}, args, 0) for args in (("the river ", "bends"), ("the river", " bends"))]
    first, second = lm.loglikelihood(requests)
    assert first == second


def test_command_runs_the_model(models: ModelBundle, tasks: TaskManager, tmp_path: Path) -> None:
    for lm, name in ((models.receiver, "receiver"), (models.sharers[0], "sharer")):
        lm.model.save_pretrained(tmp_path / name)
        lm.tokenizer.save_pretrained(tmp_path / name)
    loaded = [load_frozen(str(tmp_path / name)) for name in ("receiver", "sharer")]
    fuser = C2CModel(loaded[0], loaded[1:], models.fused.fuser).save_pretrained(tmp_path / "fuser")
    options = ["--tasks", "tiny_choice", "--include_path", str(tmp_path / "tasks"), "--batch_size", "2"]
    output = ["--output_path", str(tmp_path / "results.json"), "--log_samples"]
    main(["lm-eval", "--model", "c2c", "--model_args", f"fuser={fuser}", *options, *output])
    [samples] = tmp_path.rglob("samples_tiny_choice_*.jsonl")
    found = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
    # The harness writes values as text.
    expected = responses(run(ResponderLM(models=models, batch_size=2), tasks), "tiny_choice")
    assert found == [[[str(value) for value in pair] for pair in of_question] for of_question in expected]


def test_text_ends_at_the_first_stop_string() -> None:
    assert cut("one\ntwo. three", [".", "\n"]) == "one"
    assert cut("one", ["", "\n"]) == "one"


def test_unsupported_requests_are_refused(models: ModelBundle) -> None:
    lm = ResponderLM(models=models)
    with pytest.raises(NotImplementedError, match="no prompt"):
        lm.loglikelihood_rolling([])
    with pytest.raises(NotImplementedError, match="gen_prefix"):
        lm.apply_chat_template([], add_generation_prompt=False)
