"""The shapes of TOML files: tasks, cards, suites."""
