"""Speed and memory: every encoding beside none, a bare decoder and other libraries, in turns. `posenc bench`."""
