"""Results on disk and what they say: the store, a record's shape, where numbers come from."""
