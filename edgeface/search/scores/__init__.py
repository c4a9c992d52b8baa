"""What a network is worth before it is trained."""
