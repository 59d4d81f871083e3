"""Eyes on data: what a recording, a sample or a whole set looks like, in words and in pictures.

facts    what is odd about one recording or sample      sets    a raw folder or a shard set, odd ones first
one      one recording or sample with its partner       sheets  contact sheets of a set
text     what the terminal shows                        pages   the files that are written
figures  plots (the only matplotlib here)               paint   events and images as pixels
html, style   pieces of a page and its looks, shared with the reports of training
"""
