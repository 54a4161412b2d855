"""The explorer over HTTP, and as a file: server, page, live events, export."""
