"""Linear attention: one kernel a file; `kernel.py` has them by the forms that encodings declare."""
