"""Two-stage detection: region proposals, box and mask heads on the pyramid of a backbone."""
