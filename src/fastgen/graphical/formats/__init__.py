"""Files of graphical models.

==============================  ====================  =============================================================
functions                       suffix                format
==============================  ====================  =============================================================
`read_bif`, `write_bif`         .bif                  Interchange Format 0.15: bnlearn repository, JavaBayes
`read_xmlbif`, `write_xmlbif`   .bifxml .xmlbif .xml  XMLBIF 0.3
`read_net`, `write_net`         .net                  Hugin, flat networks
`read_dsl`, `write_dsl`         .dsl                  GeNIe 1
`read_xdsl`, `write_xdsl`       .xdsl                 GeNIe 2 and later
`read_uai`, `write_uai`         .uai                  UAI competitions, MARKOV and BAYES; knows no names
`read_uai_evidence`             .evid                 UAI competitions: observed states
`read_uai_solution`             .PR .MAR              UAI competitions: partition functions, marginals
==============================  ====================  =============================================================

Readers take a path or a stream; files may be compressed with gzip. Text is UTF-8, or Latin-1 where it is not valid
UTF-8. Numbers are kept as they are printed and rows are not rescaled (`DiscreteNetwork` says what follows from that);
only `read_net` divides rows of weights by their sums, as that format means them so. Writers print floats so that they
are read back bit for bit, to a path (compressed if it ends in ``.gz``) or a text stream, and write nothing if the
format cannot hold the network. What is not part of a `DiscreteNetwork` (properties, positions, labels, comments) is
skipped.

A file that does not follow its format, or not to a valid network, raises `FormatError`, with line and column; so does
one without any node, and one whose tables would have more than 2^24 entries that do not stand in the file. To read a
file takes time and memory in proportion to its length, uncompressed, and to these entries.
"""

import os
from collections.abc import Callable
from pathlib import Path

from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical.formats._bif import read_bif, write_bif
from fastgen.graphical.formats._dsl import read_dsl, write_dsl
from fastgen.graphical.formats._net import read_net, write_net
from fastgen.graphical.formats._text import FormatError, Source, Target
from fastgen.graphical.formats._uai import (
    UaiSolution,
    read_uai,
    read_uai_evidence,
    read_uai_network,
    read_uai_solution,
    write_uai,
)
from fastgen.graphical.formats._xml import read_xdsl, read_xmlbif, write_xdsl, write_xmlbif

__all__ = [
    "FormatError",
    "UaiSolution",
    "read_bif",
    "read_dsl",
    "read_net",
    "read_network",
    "read_uai",
    "read_uai_evidence",
    "read_uai_solution",
    "read_xdsl",
    "read_xmlbif",
    "write_bif",
    "write_dsl",
    "write_net",
    "write_network",
    "write_uai",
    "write_xdsl",
    "write_xmlbif",
]

_Reader = Callable[[Source], DiscreteNetwork]
_Writer = Callable[[DiscreteNetwork, Target], None]

_FORMATS: dict[str, tuple[_Reader, _Writer]] = {
    ".bif": (read_bif, write_bif),
    ".bifxml": (read_xmlbif, write_xmlbif),
    ".dsl": (read_dsl, write_dsl),
    ".net": (read_net, write_net),
    ".uai": (read_uai_network, write_uai),
    ".xdsl": (read_xdsl, write_xdsl),
    ".xml": (read_xmlbif, write_xmlbif),
    ".xmlbif": (read_xmlbif, write_xmlbif),
}


def read_network(path: str | os.PathLike[str]) -> DiscreteNetwork:
    """Read a directed network in the format that the suffix names, ``.gz`` after it or not.

    Parameters
    ----------
    path : path-like
        Upper and lower case do not matter in the suffix.

    Returns
    -------
    DiscreteNetwork

    Raises
    ------
    ValueError
        If the suffix is unknown.
    FormatError
        If the file is malformed, or a .uai file of an undirected model: `read_uai` reads those.
    """
    return _format_of(path)[0](path)


def write_network(network: DiscreteNetwork, path: str | os.PathLike[str]) -> None:
    """Write a directed network in the format that the suffix names, compressed if ``.gz`` follows.

    Parameters
    ----------
    network : DiscreteNetwork
    path : path-like

    Raises
    ------
    ValueError
        If the suffix is unknown, or the format cannot hold a name; nothing is written then.
    """
    _format_of(path)[1](network, path)


def _format_of(path: str | os.PathLike[str]) -> tuple[_Reader, _Writer]:
    name = Path(path)
    suffix = (name.with_suffix("") if name.suffix.lower() == ".gz" else name).suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(
            f"{os.fspath(path)!r} must end in one of {', '.join(_FORMATS)}, with or without .gz; "
            "the function of a format takes any name"
        )
    return _FORMATS[suffix]
