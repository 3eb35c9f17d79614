"""From what people have to English pairs in one table: sources, checks at the door, duplicates."""
