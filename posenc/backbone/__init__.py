"""The one transformer that every encoding enters: encoder, decoder, encoder-decoder. Needs torch alone."""
