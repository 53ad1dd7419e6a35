"""Run beam search from the command line."""

from dataclasses import replace

from examples.beam_search.workflow import MODELS, BeamSearch, SearchConfig
from examples.cli import parser_for, run_and_print

if __name__ == "__main__":
    default = SearchConfig()
    parser = parser_for("examples.beam_search", MODELS)
    for option in ("expand", "width", "depth"):
        parser.add_argument(f"--{option}", type=int, default=getattr(default, option))
    parser.add_argument("--margin", type=float, default=default.margin)
    options = parser.parse_args()
    config = replace(
        default,
        expand=options.expand,
        width=options.width,
        depth=options.depth,
        margin=options.margin,
    )
    run_and_print(BeamSearch(config=config), options)
