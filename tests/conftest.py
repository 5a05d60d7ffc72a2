"""Shared by the tests: hypothesis without deadlines and with the same examples on every run."""

from hypothesis import settings

settings.register_profile("posenc", deadline=None, derandomize=True, database=None, max_examples=20)
settings.load_profile("posenc")
