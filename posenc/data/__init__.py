"""Where examples come from: official files, the hub, or what every machine has."""
