"""What can be known of a text: its language, its script, its sentences."""
