"""Telemetry of the libraries in use: off, unless the user turns it on."""

from __future__ import annotations

import os

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def off() -> None:
    """Must come before one of them is imported. What the user has set stays as it is."""
    if "MLFLOW_DISABLE_TELEMETRY" not in os.environ:
        os.environ.setdefault("DO_NOT_TRACK", "true")  # older MLflow reads this one
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
