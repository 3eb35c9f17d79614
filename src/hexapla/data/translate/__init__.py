"""Translation engines, work in shards that survive, and the quality of each translation."""
