"""The verbs: one DVC stage a module, each reads, calls the library, writes."""
