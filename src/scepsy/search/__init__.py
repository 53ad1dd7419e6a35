"""Search: the best allocation under a predictor, exactly. Pure."""
