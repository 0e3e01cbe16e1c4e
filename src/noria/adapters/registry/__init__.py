"""Models and their versions: MLflow, the files that become versions, and whose word counts for them."""
