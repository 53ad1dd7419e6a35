"""Regenerate the published evaluation from seeds: python -m benchmarks.paper --setting quick"""

import argparse
import os
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.paper.evaluate import evaluate, read_all
from benchmarks.paper.page import write
from benchmarks.paper.settings import SETTINGS
from benchmarks.paper.workloads import Files


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("--setting", choices=list(SETTINGS), default="quick")
    parser.add_argument("--out", type=Path, default=Path("paper-out"), help="results, resumable")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/reference/evaluation.md and its figures"
    )
    parser.add_argument("--render", action="store_true", help="write only what is evaluated yet")
    options = parser.parse_args()
    began = perf_counter()

    def tell(what: str) -> None:
        print(f"{perf_counter() - began:7.0f} s  {what}", file=sys.stderr, flush=True)

    setting = SETTINGS[options.setting]
    files = Files(options.out / setting.name)
    if options.render:
        points = read_all(setting, files, tell)
    else:
        points = evaluate(setting, files, jobs=options.jobs, tell=tell)
    tell(f"wrote {write(setting, files, points, docs=options.docs)}")


if __name__ == "__main__":
    main()
