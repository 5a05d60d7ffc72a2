"""A trained model for its owner: loaded, used, and taken elsewhere."""

from posenc.trained.loading import load, load_of_any
from posenc.trained.model import Trained

__all__ = ["Trained", "load", "load_of_any"]
