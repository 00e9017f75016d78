"""Data sets made from other people's packages: emoji from npm's, photographs from Debian's."""
