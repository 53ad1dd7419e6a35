"""The gateway: OpenAI-compatible HTTP in front of replicas, recording each call."""
