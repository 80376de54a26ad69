"""Kernels compiled for one instruction set; see ``fastgen._kernels``."""
