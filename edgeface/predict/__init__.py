"""What a network takes on a device: measured, learned and predicted."""
