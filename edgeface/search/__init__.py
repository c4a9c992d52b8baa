"""Search: spaces of Architectures, what they cost on a device, and which are worth training."""
