"""File formats, one module each: bytes to events or images, and back where the project writes them."""
