"""From English pairs to pairs in every language: engines, shards, and how good each row is."""
