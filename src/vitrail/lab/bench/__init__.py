"""How fast a model runs, against its peers: same weights, same process, turn by turn, and the answers compared."""
