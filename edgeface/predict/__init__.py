"""Latency of networks on a device: measured, learned and predicted."""
