"""Commands that produce the project's own tables and plots."""
