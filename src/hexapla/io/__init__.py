"""Files: atomic writes and the cache, our tables, files that users bring, downloads."""
