"""Where work runs: this process, several, a Ray cluster; training in several processes."""
