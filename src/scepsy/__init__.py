"""Plan and serve agentic workflows that call several LLMs on one GPU cluster."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("scepsy")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0+source"
