"""The report's sections, one a file: what it asks of the records, what it says of them, which files it writes."""
