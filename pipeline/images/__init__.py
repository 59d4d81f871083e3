"""Static images: decoding, resizing, colour."""
