"""Where pieces of work are done: this process, several, or a cluster."""
