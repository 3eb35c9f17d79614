"""Translation engines, shards of work that survive, and how good each translation is."""
