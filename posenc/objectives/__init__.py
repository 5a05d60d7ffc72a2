"""What is learnt and how it is scored: one class a file, all used by the training loop in the same way."""
