"""Attention: softmax with its backends, and FAVOR+ (Performer). Needs torch alone."""
