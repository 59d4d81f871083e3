"""Inspection of recordings, samples and sets, as text, plots and pages.

facts    anomalies of one recording or sample           sets    a raw folder or a shard set, anomalies first
views    one recording or sample with its partner       sheets  contact sheets of a set
text     output of the terminal                         pages   PNG, GIF and HTML files
figures  plots (the only matplotlib here)               machine what this machine offers
inspect  entry point: finds out what a path is
"""
