"""Looking inside: attention maps of every mixer, and what can be read from them."""
