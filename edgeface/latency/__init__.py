"""Latency measurement: the protocol, its records, and the devices that networks run on.

This module imports nothing, so that a device without NumPy can still be examined and a worker can
time its imports. The modules:

    protocol.py     measure(jobs, protocol) -> [Measurement], on this machine
    measurement.py  Measurement: samples, figures, environment, validity; to and from JSON
    devices/        open_device("local" | "ssh://..." | "adb://...")
    agent.py        what runs on a device behind ssh or adb
    worker.py       one model in one process; worker_process.py starts it and asks it
"""
