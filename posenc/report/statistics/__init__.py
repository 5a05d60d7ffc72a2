"""Records to tables: means, intervals, tests; nothing here words or draws anything."""
