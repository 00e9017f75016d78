"""`python -m unnoise`, which `torchrun -m unnoise` needs."""

from unnoise.cli import main

main()
