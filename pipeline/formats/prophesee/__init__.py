"""Formats of Prophesee's cameras: RAW words (EVT 2.0, 2.1, 3.0) and DAT records."""
