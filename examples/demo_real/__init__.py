"""The demo on real engines: the same job as ``examples.demo``, on a model that really answers."""
