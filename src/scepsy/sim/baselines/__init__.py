"""Systems that ours is compared with, each by its own tuning rule."""
