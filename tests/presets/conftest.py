"""The program in this process, as tests of published files run it."""

from tests.weights.conftest import program

__all__ = ["program"]
