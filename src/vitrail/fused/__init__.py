"""A model's fast form for the machine at hand: `vitrail.optimize`."""
