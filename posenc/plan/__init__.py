"""A suite's TOML to cells."""
