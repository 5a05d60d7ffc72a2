"""What an encoding does, measured."""
