import dataclasses

import pytest

from unnoise.config.resolve import data_config, null_label, resolve
from unnoise.config.schema import TrainConfig


def config(**changes):
    return dataclasses.replace(TrainConfig(), **changes)


def test_data_complete_the_settings():
    done = resolve(config(), size=28, channels=1, classes=10)
    assert (done.model.image_size, done.model.channels) == (28, 1)
    assert (done.model.network.in_channels, done.model.network.out_channels) == (1, 2)  # learned range: twice
    assert done.model.network.classes == 11
    assert null_label(done) == 10
    assert resolve(done, size=28, channels=1, classes=10) == done


def test_unlabelled_data_make_an_unconditional_model():
    done = resolve(config(), size=32, channels=3, classes=0)
    assert done.model.network.classes is None
    assert null_label(done) is None
    assert done.label_dropout == 0


def test_without_label_dropout_there_is_no_null_class():
    done = resolve(config(label_dropout=0.0), size=32, channels=3, classes=5)
    assert done.model.network.classes == 5
    assert null_label(done) is None


def test_contradictions_are_refused():
    model = dataclasses.replace(TrainConfig().model, channels=3)
    with pytest.raises(ValueError, match=r"model.channels=3 does not fit the data, which say 1"):
        resolve(config(model=model), size=28, channels=1, classes=0)


def test_the_models_size_is_asked_of_the_data():
    model = dataclasses.replace(TrainConfig().model, image_size=64)
    assert data_config(config(model=model)).size == 64


def test_sizes_that_do_not_fit_are_refused_before_the_data_are_read():
    model = dataclasses.replace(TrainConfig().model, image_size=30)
    with pytest.raises(ValueError, match="24 or 32"):
        data_config(config(model=model))
    model = dataclasses.replace(model, image_size=32)
    with pytest.raises(ValueError, match="image_size=32 and data.size=64 differ"):
        data_config(config(model=model, data=dataclasses.replace(TrainConfig().data, size=64)))
