"""vLLM's KV cache evicted by value: a plugin for vLLM, out of its tree.

vLLM finds it by its entry point (``vllm.general_plugins``) and calls ``register`` in each of its
processes. Nothing here needs more than Python and ``scepsy.policy``, so that Scepsy can be
installed into vLLM's environment without what else it depends on.
"""

import os

NAME = "scepsy"
"""Of the plugin, to be listed in ``VLLM_PLUGINS``."""


def register() -> None:
    """Evict by value, if ``VLLM_PLUGINS`` names this plugin.

    vLLM loads all plugins that it finds where that is not set. But who installs Scepsy to plan with
    it does not ask for another order of eviction.
    """
    if NAME in os.environ.get("VLLM_PLUGINS", "").split(","):
        from scepsy.vllm_plugin.install import install  # noqa: PLC0415 - not where it is unused

        install()
