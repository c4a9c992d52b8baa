"""Zero-cost scores: estimates of what a network is worth before it is trained."""
