"""Model files, read and written without their runtimes."""
