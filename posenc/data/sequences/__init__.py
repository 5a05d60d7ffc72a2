"""Synthetic sequences, made from a seed: a family of generators a file."""
