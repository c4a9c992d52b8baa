"""Commands that prove what the project claims of its search; nobody needs them to use it."""
