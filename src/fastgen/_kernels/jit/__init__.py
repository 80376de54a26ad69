"""Kernels compiled by Numba, on first use: what only the user's model fixes. Importing one of them imports Numba."""
