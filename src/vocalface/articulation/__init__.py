"""The making of the articulatory encoder: speech that programs say, its targets, the network and its training.

What speaks from it is `observe/speech/articulatory.py`, NumPy alone.
"""
