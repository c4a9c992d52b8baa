"""Commands that prove the project's claims about its search; using edgeface needs none of them."""
