"""Graphical models over discrete variables: Bayesian networks and Markov random fields.

`fastgen.graphical.formats` reads and writes them in the formats of the field.
"""
