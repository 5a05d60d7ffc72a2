"""What every room may use: errors, seeds, paths, files, checked TOML, memory."""
