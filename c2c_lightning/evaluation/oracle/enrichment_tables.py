"""Tables of the enrichment experiment for the terminal."""

from typing import Any

from rich.table import Column, Table

from c2c_lightning.evaluation.oracle.enrichment_run import CHOSEN_ON


def enrichment_tables(report: dict[str, Any]) -> list[Table]:
    """Accuracies of all layers, of each single layer, and of the best and worst n layers; percent, 95 % intervals."""
    variants = report["variants"].items()
    return [_overview(report), *(_layers(name, variant) for name, variant in variants), _selected(report)]


def _overview(report: dict[str, Any]) -> Table:
    names = ("right, %", "95 %", "cache tokens", ": direct", "p", ": few-shot", "p")
    table = Table(Column("cache", no_wrap=True), *(Column(name, justify="right", no_wrap=True) for name in names),
                  title=f"{report['direct']['n']} questions")  # fmt: skip
    rows = {"direct": report["direct"], "few-shot": report["few_shot"]}
    for name, variant in report["variants"].items():
        rows[f"oracle, {name}"] = variant["oracle"]
    for name, outcome in rows.items():
        tests = [_test(outcome.get(f"against_{other}")) for other in ("direct", "few_shot")]
        table.add_row(name, *_accuracy(outcome), f"{outcome['cache_tokens']:.0f}", *tests[0], *tests[1])
    return table


def _layers(name: str, variant: dict[str, Any]) -> Table:
    """Each single layer, against no enriched layer."""
    titles = ("only layer", "right, %", "95 %", ": none", "p")
    table = Table(*(Column(title, justify="right", no_wrap=True) for title in titles), title=name)
    table.add_row("none", *_accuracy(variant["no_layer"]))
    for row in variant["layers"]:
        table.add_row(str(row["layer"]), *_accuracy(row), *_test(row["against_no_layer"]))
    return table


def _selected(report: dict[str, Any]) -> Table:
    """Best and worst n layers, by the questions that they are chosen on."""
    table = Table(Column("n", justify="right"), title="best / worst n layers, right in %")
    curves = []
    for name, variant in report["variants"].items():
        for way in CHOSEN_ON:
            table.add_column(f"{name}, {way.replace('_', ' ')}", justify="right", min_width=11)
            curves.append(variant["selected"][way])
    for n in range(len(curves[0]["best"])):
        pairs = [(curve["best"][n]["accuracy"], curve["worst"][n]["accuracy"]) for curve in curves]
        table.add_row(str(n + 1), *(f"{100 * best:.1f} / {100 * worst:.1f}" for best, worst in pairs))
    return table


def _accuracy(outcome: dict[str, Any]) -> list[str]:
    low, high = outcome["ci95"]
    return [f"{100 * outcome['accuracy']:.1f}", f"{100 * low:.1f}-{100 * high:.1f}"]


def _test(test: dict[str, Any] | None) -> list[str]:
    return ["", ""] if test is None else [f"{100 * test['difference']:+.1f}", f"{test['p_value']:.2g}"]
