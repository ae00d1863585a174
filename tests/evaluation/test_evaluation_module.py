"""`lightning test` on the embedded pair: report, resumption, and errors before a model loads."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from c2c_lightning import embedded
from c2c_lightning.cli import main
from c2c_lightning.errors import BenchmarkError, CheckpointError, FuserFormatError, ModelLoadError, PairMismatchError
from c2c_lightning.evaluation.benchmark_datamodule import BenchmarkDataModule
from c2c_lightning.evaluation.distributed import UnpaddedDistributedSampler, batches_of
from c2c_lightning.evaluation.evaluation_module import EvaluationModule
from c2c_lightning.evaluation.plan import EvaluationPlan, build_participants
from c2c_lightning.evaluation.runner import Runner
from c2c_lightning.evaluation.tasks import Question, Task, resolve
from c2c_lightning.export import load_fuser
from c2c_lightning.export.fuser_tensors import precision_free_checksum
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.responders.last_prefill import LastPrefill
from c2c_lightning.responders.registry import C2C, T2T, ConfidenceRouting, Receiver
from c2c_lightning.responders.responder_factory import ModelBundle
from c2c_lightning.responders.single_model import ReceiverOnly
from tests.evaluation.conftest import fused_pair

PAIR: dict[str, Any] = {"receiver": LMSpec("embedded:receiver"), "sharers": [LMSpec("embedded:sharer")]}


def rows(path: Path, count: int) -> str:
    lines = [
        {"question": f"What is number {n} of {'many ' * (n % 5)}?", "choices": ["one", "two", "three"], "answer": n % 3}
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def trainer(**more: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "barebones": False}
    return Trainer(accelerator="cpu", devices=1, **{**quiet, **more})


def evaluate(output: Path, data: BenchmarkDataModule, **choices: Any) -> dict[str, Any]:
    module = EvaluationModule(str(output), **{"plots": False, "max_new_tokens": 4, **choices})
    trainer().test(module, datamodule=data, verbose=False)
    return module.report


def quickstart(limit: int = 12, **more: Any) -> BenchmarkDataModule:
    return BenchmarkDataModule([Task("quickstart", limit=limit, **more)], batch_size=5)


def test_a_pair_without_a_fuser(tmp_path: Path) -> None:
    message = T2T("In one sentence: {question}", 16)
    report = evaluate(tmp_path, quickstart(), responders=["receiver", "sharer", message, "routing"], **PAIR)
    lines = report["benchmarks"]["quickstart"]["responders"]
    assert list(lines) == ["receiver", "sharer", "t2t", "routing"]
    assert all(line["n"] == 12 for line in lines.values())
    assert lines["sharer"]["accuracy"] >= 0.9
    assert lines["t2t"]["accuracy"] >= 0.9
    assert json.loads((tmp_path / "report.json").read_text())["version"] == 1
    predictions = (tmp_path / "predictions.jsonl").read_text().strip().split("\n")
    assert len(predictions) == 48
    assert (tmp_path / "report.md").is_file()


@pytest.mark.parametrize("mode", ["cloze", "letter"])
def test_modes_by_likelihood(tmp_path: Path, mode: Any) -> None:
    wording = "paper" if mode == "letter" else "question"
    data = quickstart(mode=mode, wording=wording)
    report = evaluate(tmp_path, data, responders=["receiver", "sharer", "t2t", "routing"], **PAIR)
    section = report["benchmarks"]["quickstart"]
    assert section["mode"] == mode
    assert section["responders"]["sharer"]["errors"] == 0
    if mode == "cloze":
        assert section["responders"]["sharer"]["accuracy"] == 1.0


class FailsAfter(ReceiverOnly):
    """Raises KeyboardInterrupt in its third batch."""

    left = 2

    def respond(self, conversations: Any, **kwargs: Any) -> Any:
        if FailsAfter.left == 0:
            raise KeyboardInterrupt
        FailsAfter.left -= 1
        return super().respond(conversations, **kwargs)


class InterruptedReceiver(Receiver):
    """Builds a `FailsAfter`."""

    def build(self, models: Any, measure_latency: bool = False) -> Any:
        return FailsAfter(models.receiver)

    def __repr__(self) -> str:
        return repr(Receiver())


def test_interrupted_evaluation_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(tmp_path / "whole", quickstart(), responders=["receiver"], **PAIR)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        evaluate(tmp_path / "cut", quickstart(), responders=[InterruptedReceiver()], **PAIR)
    batch_sizes: list[int] = []
    run = Runner.run
    monkeypatch.setattr(Runner, "run", lambda self, who, qs: batch_sizes.append(len(qs)) or run(self, who, qs))
    resumed = evaluate(tmp_path / "cut", quickstart(), responders=["receiver"], **PAIR)
    assert sum(batch_sizes) == 2
    lines = [report["benchmarks"]["quickstart"]["responders"]["receiver"] for report in (whole, resumed)]
    assert lines[0]["accuracy"] == lines[1]["accuracy"]
    outputs = [
        [json.loads(line)["output"] for line in (tmp_path / run / "predictions.jsonl").read_text().splitlines()]
        for run in ("whole", "cut")
    ]
    assert outputs[0] == outputs[1]


def test_changed_configuration_starts_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(tmp_path, quickstart(), responders=["receiver"], **PAIR)
    batch_sizes: list[int] = []
    run = Runner.run
    monkeypatch.setattr(Runner, "run", lambda self, who, qs: batch_sizes.append(len(qs)) or run(self, who, qs))
    evaluate(tmp_path, quickstart(), responders=["receiver"], **PAIR)
    assert batch_sizes == []
    evaluate(tmp_path, quickstart(), responders=["receiver"], max_new_tokens=3, **PAIR)
    assert sum(batch_sizes) == 12


def saved(folder: Path, with_self: bool = False, fusers: int = 1, token_alignment: str = "span") -> list[str]:
    """Fuser directories of one tiny pair in the same folder; the last one may be from the receiver to itself."""
    model = fused_pair(token_alignment)
    for lm, name in ((model.receiver, "receiver"), (model.sharers[0], "sharer")):
        lm.model.save_pretrained(folder / name)
        lm.tokenizer.save_pretrained(folder / name)
    receiver, sharer = load_frozen(str(folder / "receiver")), load_frozen(str(folder / "sharer"))
    models = [C2CModel(receiver, [sharer], fused_pair(token_alignment, seed).fuser) for seed in range(fusers)]
    if with_self:
        itself = C2CModel(receiver, [receiver], FuserConfig(hidden_dim=16, intermediate_dim=16))
        itself.fuser.force_gates(is_open=True)
        models.append(itself)
    return [str(m.save_pretrained(folder / f"fuser_{number}")) for number, m in enumerate(models)]


def mine(folder: Path, count: int = 7, **more: Any) -> BenchmarkDataModule:
    path = rows(folder / "rows.jsonl", count)
    return BenchmarkDataModule([Task("mine", path, **{"wording": "question", **more})], batch_size=3)


@pytest.mark.parametrize("mode", ["generate", "cloze"])
def test_c2c_and_its_controls_from_fuser_directories(tmp_path: Path, mode: Any) -> None:
    *fusers, itself = saved(tmp_path, with_self=True, fusers=2)
    controls = ["mismatched", "shuffled", "zero", "noise", "self", "gates_closed"]
    choices = {"responders": ["receiver", "c2c", "t-c2c"], "controls": controls, "mismatched_draws": 2}
    report = evaluate(tmp_path / "out", mine(tmp_path, mode=mode), fuser=fusers, self_fuser=itself, **choices)
    section = report["benchmarks"]["mine"]
    lines = section["responders"]
    assert set(lines) == {"receiver", "c2c", "t-c2c", *(f"c2c:{control}" for control in controls)}
    assert all(line["errors"] == 0 for line in lines.values())
    assert (section["gates_closed_unlike_receiver"], section["faults"]) == (0, [])
    assert {name for name, line in lines.items() if "accuracy_by_fuser" not in line} == {"receiver", "c2c:self"}
    assert len(lines["c2c"]["accuracy_by_fuser"]) == len(lines["c2c:mismatched"]["accuracy_by_draw"]) == 2
    assert lines["c2c:mismatched"]["answers"] == 28
    assert "follows_donor" in lines["c2c:mismatched"]
    assert section["verdict"]["communication"] is False
    assert report["run"]["fuser_checksums"] == [
        precision_free_checksum(load_fuser(fuser).fuser.state_dict()) for fuser in fusers
    ]
    # Each fuser by itself gives the same answers.
    alone = evaluate(tmp_path / "alone", mine(tmp_path, mode=mode), fuser=fusers[1], responders=["c2c"])
    assert alone["benchmarks"]["mine"]["responders"]["c2c"]["accuracy"] == lines["c2c"]["accuracy_by_fuser"][1]


def test_no_cache_of_a_control_is_kept_after_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[LastPrefill] = []
    prefill = LastPrefill.prefill

    def recorded(self: LastPrefill, prompt: Any) -> Any:
        used.append(self)
        return prefill(self, prompt)

    monkeypatch.setattr(LastPrefill, "prefill", recorded)
    [fuser] = saved(tmp_path)
    evaluate(tmp_path / "out", mine(tmp_path), fuser=fuser, responders=["receiver"], controls=["zero", "gates_closed"])
    assert len({id(last) for last in used}) == 1
    assert used[0]._kv == []


@pytest.mark.parametrize("alignment", ["longest", "first", "auto"])
def test_receiver_row_is_the_bare_model_with_gates_closed_among_the_controls(tmp_path: Path, alignment: str) -> None:
    """Released token alignments shift the receiver's positions in C2C prompts only, and the report says so."""
    [fuser] = saved(tmp_path, token_alignment=alignment)
    data = mine(tmp_path)
    report = evaluate(tmp_path / "out", data, fuser=fuser, responders=["receiver"], controls=["gates_closed"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    written = {line["index"]: line["output"] for line in lines if line["responder"] == "receiver"}
    alone = ReceiverOnly(load_frozen(str(tmp_path / "receiver")))
    prompts = [question.prompt(data.benchmarks[0][0].worded()) for question in data.benchmarks[0][1]]
    expected = [answer.text for answer in alone.respond(prompts, max_new_tokens=4, do_sample=False)]
    assert [written[index] for index in range(len(prompts))] == expected
    section = report["benchmarks"]["mine"]
    unlike = section["gates_closed_unlike_receiver"]
    assert unlike > 0
    assert section["gates_closed"] == {
        "unlike_receiver": unlike, "released_positions": unlike, "rounding": 0, "faults": 0,
    }  # fmt: skip
    assert section["faults"] == []
    assert section["responders"]["c2c:gates_closed"]["shifted_positions"] == len(prompts)
    assert f"{unlike} answers differ from the receiver's because" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("missing", ["some.ckpt", "best"])
def test_ckpt_path_is_refused_and_points_to_model_fuser(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, missing: str
) -> None:
    options = ["--model.output_dir", str(tmp_path), "--data.benchmarks", "[{name: quickstart}]"]
    with pytest.raises(SystemExit) as exit_:
        main(["test", *options, "--ckpt_path", missing])
    assert exit_.value.code == 1
    assert f"`--model.fuser {missing}`" in " ".join(capsys.readouterr().err.split())


def test_mismatched_pair_is_refused_before_a_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [fuser] = saved(tmp_path)
    monkeypatch.setattr(
        "c2c_lightning.evaluation.evaluation_module.load_bundles", lambda *_: pytest.fail("models are loaded")
    )
    receiver, sharer = LMSpec(str(tmp_path / "receiver")), LMSpec(str(tmp_path / "sharer"))

    def check(error: type[Exception], message: str, **choices: Any) -> None:
        with pytest.raises(error, match=message):
            evaluate(tmp_path / "out", mine(tmp_path), responders=["receiver"], **choices)

    check(PairMismatchError, "seem to be swapped", fuser=fuser, receiver=sharer, sharers=[receiver])
    check(PairMismatchError, "1 sharers .* but 2 were given", fuser=fuser, sharers=[sharer, sharer])
    pair = load_frozen("embedded:receiver"), load_frozen("embedded:sharer")
    other = C2CModel(pair[0], pair[1:], FuserConfig(hidden_dim=8, intermediate_dim=8)).save_pretrained(tmp_path / "b")
    check(PairMismatchError, "Pass 'embedded:receiver' as receiver", fuser=[fuser, str(other)])
    check(PairMismatchError, "was trained for the sharer", fuser=fuser, self_fuser=fuser)
    check(ModelLoadError, "nowhere", fuser=fuser, receiver=LMSpec(str(tmp_path / "nowhere")))
    check(FuserFormatError, "no such local directory", fuser=str(tmp_path / "no/fuser"))
    check(CheckpointError, r"there is no checkpoint", fuser="nothing.ckpt")
    assert not (tmp_path / "out").exists()


class RecordingBar(TQDMProgressBar):
    """Records the text of the progress bar."""

    texts: ClassVar[list[str]] = []

    def init_test_tqdm(self) -> Any:
        bar = super().init_test_tqdm()
        bar.set_postfix_str = lambda text, refresh=True: self.texts.append(text)
        return bar


def test_progress_bar_shows_running_accuracy(tmp_path: Path) -> None:
    RecordingBar.texts.clear()
    module = EvaluationModule(str(tmp_path), responders=["receiver", "sharer"], max_new_tokens=4, plots=False, **PAIR)
    recording = trainer(enable_progress_bar=True, callbacks=[RecordingBar()])
    recording.test(module, datamodule=quickstart(10), verbose=False)
    assert len(RecordingBar.texts) == 2
    lines = module.report["benchmarks"]["quickstart"]["responders"]
    assert RecordingBar.texts[-1] == f"receiver {lines['receiver']['accuracy']:.1%} sharer 100.0%"


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_batches_are_distributed_without_repetition(tmp_path: Path, world: int) -> None:
    data = BenchmarkDataModule([Task("mine", rows(tmp_path / "a.jsonl", 10))])
    data.setup()
    batches = batches_of(*data.benchmarks[0], batch_size=3)
    samplers = [UnpaddedDistributedSampler(batches, rank, world) for rank in range(world)]
    assert sorted(q.index for sampler in samplers for n in sampler for q in batches[n].questions) == list(range(10))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]
    lengths = [len(q.text) for batch in batches for q in batch.questions]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (EvaluationPlan(["recevier"]), "unknown responder 'recevier'"),
        (EvaluationPlan([], []), "No responders configured"),
        (EvaluationPlan(["receiver", Receiver()]), "`receiver` is configured more than once"),
        (EvaluationPlan(["c2c"]), "need a fuser"),
        (EvaluationPlan([], ["zero"]), "need a fuser"),
    ],
)
def test_invalid_plan_is_refused(plan: EvaluationPlan, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        plan.check([Task("b", "x", mode="generate")], has_fuser=False, has_self_fuser=False)


@pytest.mark.parametrize(
    ("plan", "controls"),
    [
        (EvaluationPlan(["receiver", "c2c"]), ("mismatched", "gates_closed")),
        (EvaluationPlan(["receiver", C2C()]), ("mismatched", "gates_closed")),
        (EvaluationPlan(["receiver", "c2c"], []), ()),
        (EvaluationPlan(["receiver", "c2c"], ["zero"]), ("zero",)),
        (EvaluationPlan(["receiver", "sharer"]), ()),
    ],
)
def test_controls_run_by_default_wherever_c2c_does(plan: EvaluationPlan, controls: tuple[str, ...]) -> None:
    assert plan.control_names == controls


def test_default_controls_that_a_benchmark_does_not_allow_are_left_out(c2c: C2CModel) -> None:
    bundle = ModelBundle(c2c.receiver, c2c.sharers, c2c)
    task = resolve(Task("mine", path="x"))
    one = [Question(0, "a", "Which?", ("x", "y"), 0)]
    names = [p.name for p in build_participants(EvaluationPlan(["c2c"]), [bundle], task, one)]
    assert names == ["c2c", "c2c:gates_closed"]
    with pytest.raises(BenchmarkError, match="at least two questions"):
        build_participants(EvaluationPlan(["c2c"], ["mismatched"]), [bundle], task, one)


def test_own_rows_of_a_pair_are_scored_by_likelihood_and_the_report_says_so(tmp_path: Path) -> None:
    facts = Path(str(embedded.facts("heldout.jsonl")))
    data = BenchmarkDataModule([Task("own", path=str(facts), limit=12)], batch_size=12)
    section = evaluate(tmp_path, data, responders=["receiver", "sharer"], **PAIR)["benchmarks"]["own"]
    assert (section["mode"], section["wording"]) == ("cloze", "question")
    assert "default for multiple-choice rows of one's own" in section["protocol"]
    assert section["responders"]["sharer"]["accuracy"] == 1.0
    assert section["responders"]["sharer"]["written"] == 1.0
    assert section["warnings"] == []


class GenerateOnly(Receiver):
    """A responder without log-probabilities."""

    can_score: ClassVar[bool] = False


def test_missing_requirements_of_responders_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="set `self_fuser`"):
        EvaluationPlan([C2C()], ["self"]).check([], has_fuser=True, has_self_fuser=False)
    with pytest.raises(BenchmarkError, match="computes no log-probabilities"):
        EvaluationPlan([GenerateOnly(), ConfidenceRouting()]).check([Task("b", "x", mode="cloze")], True, False)
    plan = EvaluationPlan([C2C()])
    object.__setattr__(plan, "controls", ["mismatch"])
    with pytest.raises(BenchmarkError, match=r"unknown control 'mismatch'\. Known are mismatched"):
        plan.check([], True, False)


def test_bad_data_is_refused_before_a_model_loads(tmp_path: Path) -> None:
    def check(benchmarks: list[Task], message: str) -> None:
        module = EvaluationModule(str(tmp_path / "out"), receiver=LMSpec("does/not/exist"), responders=["receiver"])
        with pytest.raises(BenchmarkError, match=message):
            trainer().test(module, datamodule=BenchmarkDataModule(benchmarks), verbose=False)

    check([Task("nonsense")], "unknown benchmark")
    check([], "at least one")
    check([Task("quickstart"), Task("quickstart")], "each with its own name")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BenchmarkError, match="batch_size is 0"):
        BenchmarkDataModule([], batch_size=0)


def test_run_without_models_is_refused(tmp_path: Path) -> None:
    module = EvaluationModule(str(tmp_path), responders=["receiver"])
    with pytest.raises(BenchmarkError, match="No models configured"):
        trainer().test(module, datamodule=quickstart(), verbose=False)
