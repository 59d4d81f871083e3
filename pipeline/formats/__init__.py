"""Event formats, one module each: bytes to events, and back where the project writes them."""
