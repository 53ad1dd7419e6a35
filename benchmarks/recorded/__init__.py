"""Recorded executions on plans: the reference that predictors are compared with."""
