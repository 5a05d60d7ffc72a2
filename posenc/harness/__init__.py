"""lm-evaluation-harness: a causal language model as it asks one, and what it finds of rows that lie on this machine."""
