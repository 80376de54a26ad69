"""Families: what one observation looks like, p(x | z), for K components at once.

A structure (one density, mixture, hidden Markov chain, class label) takes any family. A family is a value: fitting
returns a new one, and an old one never changes.
"""

from fastgen.families._base import Family, Statistics
from fastgen.families.bernoulli import Bernoulli
from fastgen.families.categorical import Categorical
from fastgen.families.custom import Custom, Parameter
from fastgen.families.gaussian import Gaussian
from fastgen.families.multinomial import Multinomial
from fastgen.families.poisson import Poisson
from fastgen.families.product import Product
from fastgen.families.student_t import StudentT

__all__ = [
    "Bernoulli",
    "Categorical",
    "Custom",
    "Family",
    "Gaussian",
    "Multinomial",
    "Parameter",
    "Poisson",
    "Product",
    "Statistics",
    "StudentT",
]
