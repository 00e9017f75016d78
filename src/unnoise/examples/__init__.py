"""Small trained models that come with the package, each a folder with its model card.

`unnoise sample fashion-28` draws with one; `unnoise train fashion-28` learns it again: a model has the name
of its preset.
"""

from pathlib import Path

HERE = Path(__file__).parent
MODEL = "model.safetensors"
CARD = "README.md"


def names() -> list[str]:
    """Every shipped model, in the order of the alphabet."""
    return sorted(file.parent.name for file in HERE.glob(f"*/{MODEL}"))


def find(name: str) -> Path | None:
    """The file of a shipped model, None where there is none of that name."""
    return HERE / name / MODEL if name in names() else None
