"""posenc's models inside other programs."""
