"""Settings: where a value comes from, and what a wrong one says."""

from pathlib import Path

import pytest

from model.settings import MicroConfig
from streams.settings import SettingsError, TrainingSettings, effective, load_settings
from streams.wiring import micro_config_of


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("UPWELL_CONFIG", "UPWELL_KAFKA__BOOTSTRAP"):
        monkeypatch.delenv(name, raising=False)


def write(text: str) -> Path:
    path = Path("upwell.toml")
    path.write_text(text)
    return path


def test_a_variable_goes_before_the_file_and_the_file_before_the_default(monkeypatch):
    write("[kafka]\nbootstrap = 'file:1'\nplays = 'p'\n")
    monkeypatch.setenv("UPWELL_KAFKA__BOOTSTRAP", "variable:1")

    settings = load_settings()

    assert (settings.kafka.bootstrap, settings.kafka.plays) == ("variable:1", "p")
    source = {one.key: one.source for one in effective(settings)}
    assert source["kafka.bootstrap"] == "UPWELL_KAFKA__BOOTSTRAP"
    assert source["kafka.plays"] == "upwell.toml"
    assert source["kafka.coplays"] == "default"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[training]\nparts = 3\ntrainers = 2", "2 trainers cannot share 3 parts evenly"),
        ("[training]\nreplay = 1.5", "training.replay = 1.5: Input should be less than or equal"),
        ("[graph]\nleaf_index = 'btree'", "graph.leaf_index = 'btree': Input should be 'sums16'"),
        ("[kafka]\nbotstrap = 'x'", "kafka.botstrap is no setting"),
        ("[kafka]\nmax_batch = 'many'", "kafka.max_batch = 'many'"),
        ("[kafka", "is not TOML"),
        ("[kafka]\nsecurity_protocol = 'SASL_SSL'", "kafka: SASL_SSL wants kafka.sasl_mechanism"),
        (
            "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'PLAIN'\n"
            "sasl_username = 'u'",
            "wants kafka.sasl_password_file",
        ),
        ("[kafka]\nssl_key_file = 'k'", "ssl_certificate_file and kafka.ssl_key_file go together"),
        ("[kafka]\nplays = 'coplays'", "want three topics"),
    ],
)
def test_a_wrong_value_names_the_key_the_value_and_what_is_allowed(text, said):
    write(text)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert said in str(caught.value)


def test_a_misspelt_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("UPWELL_KAFKA_BOOTSTRAP", "one underscore:1")

    with pytest.raises(SettingsError, match="UPWELL_KAFKA_BOOTSTRAP names no setting"):
        load_settings()


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(SettingsError, match=r"nowhere\.toml: No such file"):
        load_settings(Path("nowhere.toml"))


def test_no_secret_is_shown(monkeypatch):
    monkeypatch.setenv("UPWELL_REDIS__URL", "redis://me:hunter2@h:1/0")
    monkeypatch.setenv("UPWELL_KAFKA__SASL_PASSWORD", "hunter3")

    shown = {one.key: one.value for one in effective(load_settings())}

    assert shown["redis.url"] == "redis://me:***@h:1/0"
    assert shown["kafka.sasl_password"] == "***"
    assert not any("hunter" in value for value in shown.values())


def test_a_password_file_that_cannot_be_read_is_named():
    write("[kafka]\nsasl_password_file = 'gone'")

    with pytest.raises(SettingsError, match=r"kafka\.sasl_password_file = gone"):
        load_settings().kafka.client()


def test_what_goes_wrong_with_a_section_shows_none_of_its_secrets():
    write("[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_password = 'hunter2'")

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert "hunter2" not in str(caught.value)


def test_a_client_has_its_certificate_and_its_secrets_from_files(tmp_path):
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "phrase").write_text("phrase\n")
    write(
        "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'SCRAM-SHA-512'\n"
        "sasl_username = 'u'\nsasl_password_file = 'password'\nssl_ca_file = 'ca.pem'\n"
        "ssl_certificate_file = 'c.pem'\nssl_key_file = 'k.pem'\nssl_key_password_file = 'phrase'"
    )

    assert load_settings().kafka.client() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": "secret",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "c.pem",
        "ssl.key.location": "k.pem",
        "ssl.key.password": "phrase",
    }


def test_a_worker_trains_by_the_models_defaults_where_nothing_is_set():
    assert micro_config_of(TrainingSettings()) == MicroConfig()
