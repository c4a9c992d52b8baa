"""Reports as single HTML files that open offline, and pictures of figures."""
