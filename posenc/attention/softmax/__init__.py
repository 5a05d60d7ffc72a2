"""Softmax attention: one backend a file, and the fixed rule that chooses among them."""
