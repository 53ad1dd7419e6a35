"""How well measured silicon is predicted: fit on some groups, predict those left out whole.

    SCEPSY_DATA=../shared/data python -m benchmarks.silicon_prediction   # one JSON line on stdout
    python -m benchmarks.silicon_prediction --measured silicon_sample.csv --folds 76 --tables

The measurements are ``systems/silicon_sample.csv`` of the wheel aiconfigurator-core 0.12.0
(ai-dynamo/aiconfigurator), aggregated rows. A group is an LLM on so many GPUs of a type. Groups are
dealt over folds by seed; each fold is predicted by a model fitted to the others alone. For
aiconfigurator's own predictions beside ours, write them once with
``tools/aiconfigurator_predictions.py`` and name the file by SCEPSY_AICONFIGURATOR.

Errors are |predicted / measured - 1|. Rows that were published more than once count once.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

import numpy as np

from benchmarks.host import report
from scepsy.errors import MissingError
from scepsy.profiles.silicon_fit.configuration import Configuration, Measured
from scepsy.profiles.silicon_fit.fit import Abstained, Estimate, Predicted, fit
from scepsy.profiles.silicon_fit.kernels import HALF_SEED
from scepsy.profiles.silicon_fit.published import distinct, halves, load_published

DATA = Path(os.environ.get("SCEPSY_DATA", "../shared/data"))
AICONFIGURATOR = os.environ.get("SCEPSY_AICONFIGURATOR")
SEED, FOLDS = 0, 20
TARGETS = {"tpot": 0.08, "ttft": 0.20, "throughput": 0.10}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A measurement, and what was said of it without its group."""

    measured: Measured
    ours: Predicted
    theirs: tuple[float, float] | None
    """aiconfigurator's TTFT and TPOT (s)."""


Errors = dict[str, float]


def our_estimates(one: Outcome) -> dict[str, tuple[Estimate, float]]:
    """Estimate and measured value of each quantity."""
    return {
        "tpot": (one.ours.tpot_s, one.measured.tpot_s),
        "ttft": (one.ours.ttft_s, one.measured.ttft_s),
        "throughput": (one.ours.calls_per_s, one.measured.calls_per_s),
    }


def our_errors(one: Outcome) -> Errors:
    return {
        name: abs(estimate.value / measured - 1)
        for name, (estimate, measured) in our_estimates(one).items()
    }


def their_errors(one: Outcome) -> Errors:
    assert one.theirs is not None
    ttft_s, tpot_s = one.theirs
    latency_s = ttft_s + (one.measured.configuration.output_tokens - 1) * tpot_s
    return {
        "tpot": abs(tpot_s / one.measured.tpot_s - 1),
        "ttft": abs(ttft_s / one.measured.ttft_s - 1),
        "throughput": abs(one.measured.latency_s / latency_s - 1),
    }


def held_out(
    measured: Sequence[Measured], folds: int, theirs: Mapping[str, tuple[float, float]]
) -> tuple[list[Outcome], list[Abstained], float]:
    """All outcomes, all abstentions, and the seconds of the slowest fit."""
    groups = sorted({m.configuration.group for m in measured})
    Random(SEED).shuffle(groups)
    outcomes, abstentions, fit_s = [], [], 0.0
    for fold in range(folds):
        left_out = set(groups[fold::folds])
        start = perf_counter()
        model = fit([m for m in measured if m.configuration.group not in left_out])
        fit_s = max(fit_s, perf_counter() - start)
        for one in measured:
            if one.configuration.group in left_out:
                answer = model.predict(one.configuration)
                if isinstance(answer, Abstained):
                    abstentions.append(answer)
                else:
                    outcomes.append(Outcome(one, answer, theirs.get(one.row_id)))
        print(f"fold {fold + 1} of {folds}", file=sys.stderr)
    return outcomes, abstentions, fit_s


def summary(
    outcomes: Sequence[Outcome], errors_of: Callable[[Outcome], Errors]
) -> dict[str, dict[str, float]]:
    errors = [errors_of(one) for one in outcomes]
    return {
        name: {
            "median": round(float(np.median([e[name] for e in errors])), 4),
            "p90": round(float(np.quantile([e[name] for e in errors], 0.9)), 4),
        }
        for name in TARGETS
    }


def coverage(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Part of the measurements within their 90 % error bars."""
    covered = [
        {name: bar.covers(measured) for name, (bar, measured) in our_estimates(one).items()}
        for one in outcomes
    ]
    return {name: round(sum(c[name] for c in covered) / len(covered), 4) for name in TARGETS}


def load_theirs() -> dict[str, tuple[float, float]]:
    """aiconfigurator's TTFT and TPOT (s) by row; empty where none were written."""
    if AICONFIGURATOR is None:
        return {}
    with Path(AICONFIGURATOR).open() as file:
        rows = [json.loads(line) for line in file]
    return {
        row["id"]: (row["ttft_ms"] / 1e3, row["tpot_ms"] / 1e3)
        for row in rows
        if "failed" not in row
    }


BREAKDOWNS: dict[str, Callable[[Configuration], str]] = {
    "engine": lambda c: f"{c.engine} {c.engine_version or '(unknown)'}",
    "GPU": lambda c: c.gpu_type,
    "LLM": lambda c: c.llm,
    "precision": lambda c: c.precision,
    "GPUs": lambda c: str(c.gpus) if c.gpus <= 8 else "12 to 72",
}


def print_tables(outcomes: Sequence[Outcome]) -> None:
    """Markdown tables of where predictions are good and bad, on stderr."""
    for title, of in BREAKDOWNS.items():
        print(
            f"\n| {title} | rows | TPOT | TTFT | throughput | covered (TPOT, TTFT) |",
            file=sys.stderr,
        )
        print("|---|---|---|---|---|---|", file=sys.stderr)
        for name in sorted({of(one.measured.configuration) for one in outcomes}):
            some = [one for one in outcomes if of(one.measured.configuration) == name]
            errors, bars = summary(some, our_errors), coverage(some)
            medians = " | ".join(f"{100 * errors[q]['median']:.1f} %" for q in TARGETS)
            covered = f"{100 * bars['tpot']:.0f} %, {100 * bars['ttft']:.0f} %"
            print(f"| {name} | {len(some)} | {medians} | {covered} |", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measured", type=Path, default=DATA / "silicon" / "agg.csv.gz")
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--tables", action="store_true", help="errors by engine, GPU, LLM too")
    options = parser.parse_args()
    try:
        published = load_published(options.measured)
    except MissingError as exc:
        sys.exit(f"{exc}; {exc.hint}")
    measured = distinct(published)
    groups = {m.configuration.group for m in measured}
    outcomes, abstentions, fit_s = held_out(
        measured, min(options.folds, len(groups)), load_theirs()
    )
    chosen = {m.configuration.group for m in halves(measured, seed=HALF_SEED)[0]}
    other = [one for one in outcomes if one.measured.configuration.group not in chosen]
    both = [one for one in outcomes if one.theirs is not None]
    if options.tables:
        print_tables(outcomes)
    report(
        "silicon_prediction",
        repeats=1,
        seed=SEED,
        folds=min(options.folds, len(groups)),
        groups=len(groups),
        rows_published=len(published),
        rows_distinct=len(measured),
        predicted=len(outcomes),
        abstained=len(abstentions),
        targets=TARGETS,
        all_groups=summary(outcomes, our_errors),
        coverage=coverage(outcomes),
        other_half=summary(other, our_errors),
        other_half_coverage=coverage(other),
        aiconfigurator_predicts=len(both),
        aiconfigurator=summary(both, their_errors) if both else None,
        ours_on_the_same_rows=summary(both, our_errors) if both else None,
        fit_s=round(fit_s, 1),
    )


if __name__ == "__main__":
    main()
