"""Pictures and their labels: reading, checking, transforming, ordering."""
