"""Training: a loop that can be killed at any instant and goes on as if it had not been."""

from unnoise.train.ema import Ema
from unnoise.train.events import TrainResult
from unnoise.train.optim import learning_rate, make_optimizer
from unnoise.train.start import train

__all__ = ["Ema", "TrainResult", "learning_rate", "make_optimizer", "train"]
