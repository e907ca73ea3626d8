"""World tournaments: the plan, the run, the results, seeds and verification."""
