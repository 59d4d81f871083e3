"""Code of users that adds to the program without a clone."""
