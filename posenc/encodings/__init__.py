"""The built-in encodings, one a file, named after it. See README.md beside this file for which hook each uses."""
