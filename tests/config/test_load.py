import dataclasses

import pytest

from unnoise.config.load import differences, from_dict, from_yaml, override, to_dict, to_yaml
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import OptimizerConfig, TrainConfig
from unnoise.networks.settings import DdpmUNetSettings, UNetSettings
from unnoise.presets import load_preset, preset_names


def refused(call) -> str:
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_yaml_round_trip_of_every_preset():
    for name in preset_names():
        config = load_preset(name).config
        assert from_yaml(TrainConfig, to_yaml(config)) == config


def test_round_trip_keeps_tuples_and_fractions():
    config = TrainConfig()
    network = dataclasses.replace(config.model.network, channel_mult=(0.5, 1, 2.5), attention=(1, 8))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, network=network))
    back = from_dict(TrainConfig, to_dict(config))
    assert back == config
    assert isinstance(back.model.network.channel_mult, tuple)


def test_override_reaches_inside_and_reads_yaml_numbers():
    values = override(
        {}, ["optimizer.lr=2e-4", "model.network.channel_mult=[1, 2]", ("data.source", "123")], TrainConfig
    )
    config = from_dict(TrainConfig, values)
    assert config.optimizer.lr == 2e-4
    assert config.model.network.channel_mult == (1, 2)
    assert config.data.source == "123"
    assert config.optimizer.betas == OptimizerConfig().betas


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("model.network.widht=64", 'did you mean "width"'),
        ("optimiser.lr=1", 'did you mean "optimizer"'),
        ("steps.more=1", "holds a value"),
        ("steps", "name=value"),
        ("data.source=[", "YAML"),
        ("model.network.kind.more=1", "holds a value"),
    ],
)
def test_wrong_override_names_the_way_out(assignment, expected):
    assert expected in refused(lambda: override({}, [assignment], TrainConfig))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr = 'fast'"),
        ({"model": {"network": {"depht": 2}}}, 'did you mean "depth"'),
        ({"model": {"predicts": "epsilon"}}, "model.predicts"),
        ({"nonsense": 1}, "unknown setting nonsense"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr"),
        ({"model": {"network": {"kind": "ddmp"}}}, "model.network.kind = 'ddmp': use 'adm', 'ddpm'"),
        ({"model": {"network": {"kind": "ddpm", "heads": 2}}}, "unknown setting model.network.heads"),
        ({"model": {"network": {"kind": "ddpm", "width": "x"}}}, "model.network.width = 'x'"),
        ({"model": {"network": 3}}, "model.network = 3: use settings of its own, `name: value`, of which"),
        ({"model": {"network": {"kind": None}}}, "of which `kind` says"),
        ({"model": 3}, "model = 3: use settings of its own, `name: value`"),
        ({"ema": {"rates": 0.9}}, "ema.rates = 0.9: use a list"),
        ({"model": {"told": [{"what": "text"}]}}, "model.told[0].encoder is missing"),
        ({"model": {"told": [{"what": "text", "encoder": {"widht": 3}}]}}, 'did you mean "width"'),
        (
            {"model": {"told": [{"what": "map", "encoder": {}, "waht": 1}]}},
            "unknown setting model.told[0].waht",
        ),
    ],
)
def test_wrong_values_are_refused(values, expected):
    assert expected in refused(lambda: from_dict(TrainConfig, values))


def test_config_from_the_future_is_refused():
    assert "newer unnoise" in refused(
        lambda: from_yaml(TrainConfig, "format: 99\nsteps: 3\n", where="config.yaml")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "x.yaml cannot be read as YAML: line 1, column 5: expected the node content"),
        ("steps: 1\n\tseed: 2", "line 2, column 1: found character"),
        ("- 1\n- 2\n", "must be `key: value` lines, and is a list"),
        ("just words", "must be `key: value` lines, and is a single value"),
        ("[]", "must be `key: value` lines, and is a list"),
        ("", "must be `key: value` lines, and is empty"),
        ("steps: 1\nsteps: 2", "steps is there twice"),
        ("steps: !!set {a}", "could not determine a constructor for the tag 'tag:yaml.org,2002:set'"),
        ("steps: !!binary aGk=", "could not determine a constructor"),
        ("steps: !!timestamp x", "could not determine a constructor"),
        ("steps: !!int x", "invalid literal for int"),
        ("steps: !!bool x", "cannot be read as YAML"),
        (f"steps: {'1' * 5000}", "Exceeds the limit"),
        ("[" * 3000, "it is nested too deeply"),
        ("&a {model: *a}", "unknown setting model.model"),
        ("steps: &a [*a]", "x.yaml: steps = [[...]]"),
        ("1: 2", "names of settings are text"),
    ],
)
def test_text_that_is_no_settings_file(text, expected):
    assert expected in refused(lambda: from_yaml(TrainConfig, text, where="x.yaml"))
    refused(lambda: from_dict(TrainConfig, override({}, [f"steps={text}"], TrainConfig)))


@pytest.mark.parametrize("date", ["2020-01-31", "2020-13-45", "2020-01-01 25:99:99"])
def test_dates_are_text(date):
    assert from_yaml(TrainConfig, f"data: {{source: {date}}}").data.source == date


def test_differences_name_the_leaves():
    a = TrainConfig()
    b = dataclasses.replace(a, optimizer=dataclasses.replace(a.optimizer, lr=0.5), steps=7)
    assert differences(a, a) == []
    assert differences(a, b) == ["optimizer.lr: 0.0001 -> 0.5", "steps: 100000 -> 7"]


def test_requests_take_numbers_for_text():
    assert from_dict(GenerateRequest, {"steps": 25, "labels": [3, "bag"]}).labels == ("3", "bag")


def test_unknown_preset_suggests():
    assert 'did you mean "fashion-28"' in refused(lambda: load_preset("fashion28"))


def test_settings_are_free_of_torch():
    assert dataclasses.is_dataclass(UNetSettings)


def test_a_network_is_of_the_kind_that_is_named_and_else_of_the_first():
    named = from_dict(TrainConfig, {"model": {"network": {"kind": "ddpm", "width": 64}}})
    assert named.model.network == DdpmUNetSettings(width=64)
    assert from_yaml(TrainConfig, to_yaml(named)) == named
    assert from_dict(TrainConfig, {"model": {"network": {"width": 64}}}).model.network == UNetSettings(
        width=64
    )


def test_overrides_know_the_settings_of_the_kind_at_hand():
    values = override({}, ["model.network.kind=ddpm", "model.network.width=64"], TrainConfig)
    assert from_dict(TrainConfig, values).model.network == DdpmUNetSettings(width=64)
    message = refused(lambda: override(values, ["model.network.heads=2"], TrainConfig))
    assert "unknown setting model.network.heads" in message and "dropout" in message


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"network": {"depth": 10**12}}},
        {"model": {"network": {"transformer_depth": 1001}}},
        {"gan": {"generator": {"depth": 1001}}},
        {"model": {"network": {"width": 10**12}}},
        {"model": {"told": [{"what": "text", "encoder": {"kind": "tokens", "depth": 10**9}}]}},
    ],
)
def test_networks_that_would_be_built_for_ever_are_refused(values):
    assert "no network is so large; use up to 1," in refused(lambda: from_dict(TrainConfig, values))
