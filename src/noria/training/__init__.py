"""Training: what sets off a run, what it learns from, and the pipeline that makes a candidate of it."""
