"""Learn from published end-to-end measurements how fast LLMs serve, and predict the unmeasured."""
