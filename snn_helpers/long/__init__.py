"""What a long run needs around its training step; a reader of the book can follow it without this folder.

`examples` reads data sets, `checkpoint` keeps a run that may be cut off, `processes` shares it among
processes, `progress` shows how far it is, and `recording` keeps what the runs of the book measured.
"""
