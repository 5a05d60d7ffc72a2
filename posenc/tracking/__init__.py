"""MLflow, a mirror of the records."""
