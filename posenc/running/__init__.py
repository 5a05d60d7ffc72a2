"""Many cells: the driver, the queue, engines, progress."""
