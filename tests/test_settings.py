"""Laws of the settings: what is wrong is said in one line, secrets are not, the sample is complete."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from edge_agent.contract.alarm_rules import changed_rules
from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.errors import ConfigurationError
from edge_agent.settings import AlarmSettings, Settings, load_settings

SAMPLE = Path(__file__).parent.parent / "deploy" / "edge-agent.toml"


def _write(directory: Path, text: str) -> Path:
    path = directory / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return path


def setting_defaults(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return every key of the settings class with its default; `...` where it must be given."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        kind = info.annotation
        inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= setting_defaults(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = ... if info.is_required() else info.default
    return found


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        value = value[0] if isinstance(value, list) else value
        deeper = isinstance(value, dict) and value
        found |= _flatten(value, f"{prefix}{name}.") if deeper else {prefix + name: value}
    return found


def test_sample_lists_every_key_with_its_default() -> None:
    """The shipped sample holds exactly the keys of the settings class, each with its default."""
    text = SAMPLE.read_text(encoding="utf-8")
    written = _flatten(tomllib.loads(text))
    commented = _flatten(tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)))
    keys = setting_defaults(Settings)
    assert set(commented) == set(keys)
    for key, default in keys.items():
        if default is None:
            assert key not in written
        elif default is not ... and key != "mqtt.inputs.topic":
            assert written[key] == default, key


def test_sample_loads() -> None:
    """The shipped sample is valid and equals the defaults, with the bundle beside the file."""
    settings = load_settings(SAMPLE)
    assert settings == Settings.model_validate({"bundle": {"path": SAMPLE.parent / "bundle"}})


def test_alarms_say_only_what_differs_from_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not given under [alarms] is left to the bundle; each key is one of the bundle's rules."""
    text = "[bundle]\npath='b'\n[alarms]\nmerge_samples=0\n[alarms.sensors.flow]\nmin_absolute=2"
    monkeypatch.setenv("FOREWARN_ALARMS__COOL_DOWN_SAMPLES", "7")
    changes = load_settings(_write(tmp_path, text)).alarms.changes
    flow = {"min_absolute": 2.0, "min_relative": 0.0, "direction": "both"}
    assert changes == {"merge_samples": 0, "cool_down_samples": 7, "sensors": {"flow": flow}}
    rules = changed_rules(AlarmRules(), changes, ["flow"])
    assert (rules.cool_down_samples, rules.sensors["flow"].min_absolute) == (7, 2.0)
    assert set(AlarmSettings.model_fields) == {item.name for item in fields(AlarmRules)}


def test_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the environment overrides one key of the file and leaves its neighbours."""
    path = _write(tmp_path, '[bundle]\npath = "b"\n[mqtt]\nhost = "broker"\nport = 1\n')
    monkeypatch.setenv("FOREWARN_MQTT__PORT", "1999")
    settings = load_settings(path)
    assert (settings.mqtt.host, settings.mqtt.port) == ("broker", 1999)
    assert settings.bundle.path == tmp_path / "b"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "bundle: must be given"),
        ("[bundle]\npath = 3", "bundle.path: Input is not a valid path"),
        ("[bundle]\npath='b'\n[mqtt]\nhosts='x'", "mqtt.hosts: is not a known key"),
        ("[bundle]\npath='b'\n[mqtt]\nport=70000", "mqtt.port: Input should be less than or equal to 65535"),
        ("[bundle]\npath='b'\n[mqtt]\ninputs=[]", "mqtt: inputs must hold at least one topic"),
        ("[bundle]\npath='b'\n[mqtt]\nnode=''", "mqtt.node: String should have at least 1 character"),
        (
            "[bundle]\npath='b'\n[mqtt]\nbase_topic='a/#'",
            "mqtt.base_topic: must be a topic without wildcards",
        ),
        ("[bundle]\npath='b'\n[[mqtt.inputs]]\ntopic='a/{x}'", "mqtt.inputs.0.topic: topic template 'a/{x}'"),
        ("[bundle]\npath='b'\n[[mqtt.inputs]]\ntopic='a'", "mqtt.inputs.0: asset must be given"),
        ("[bundle]\npath='b'\n[mqtt]\npassword_file='p'", "mqtt: password_file needs a username"),
        (
            "[bundle]\npath='b'\n[mqtt.tls]\nkey_file='k'",
            "mqtt.tls: certificate_file and key_file go together",
        ),
        (
            "[bundle]\npath='b'\n[quality]\nranges={flow=[5.0, 1.0]}",
            "quality: ranges: flow: must be two numbers, the lower first",
        ),
        (
            "[bundle]\npath='b'\n[alarms]\nmerge_samples=-1",
            "alarms.merge_samples: Input should be greater than or equal to 0",
        ),
        (
            "[bundle]\npath='b'\n[alarms.sensors.flow]\ndirection='up'",
            "alarms.sensors.flow.direction: Input should be 'both', 'above' or 'below'",
        ),
        ("[bundle", "TOML: "),
    ],
)
def test_bad_file_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    """A bad file gives one line `file: field: rule` and exit code 78."""
    path = _write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: {line}")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 78


def test_unreadable_file_is_one_line(tmp_path: Path) -> None:
    """A file that is missing or not UTF-8 is named."""
    with pytest.raises(ConfigurationError, match=r"absent\.toml: file: No such file"):
        load_settings(tmp_path / "absent.toml")
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"odd\.toml: file: must be UTF-8"):
        load_settings(tmp_path / "odd.toml")


def test_bad_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value from the environment names the variable and not the file, and never shows the value."""
    monkeypatch.setenv("FOREWARN_MQTT__PORT", "hunter2")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_write(tmp_path, "[bundle]\npath='b'"))
    assert str(caught.value).startswith("environment variable FOREWARN_MQTT__PORT: mqtt.port: ")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("FOREWARN_MQTT", "hunter2")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_write(tmp_path, "[bundle]\npath='b'"))
    assert "hunter2" not in str(caught.value)


def test_password_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is read from systemd's credentials, is not part of the settings, and its absence is one line."""
    path = _write(tmp_path, "[bundle]\npath='b'\n[mqtt]\nusername='u'\npassword_file='secret'")
    settings = load_settings(path)
    with pytest.raises(ConfigurationError, match=r"mqtt\.password_file: must be readable"):
        settings.mqtt.read_password()
    (tmp_path / "secret").write_text("open sesame\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert settings.mqtt.read_password() == "open sesame"
    assert "sesame" not in repr(settings)
