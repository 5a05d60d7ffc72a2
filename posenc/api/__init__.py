"""What the author of a plug-in needs: an encoding's interface, composition, starts, the registry. Torch alone."""
