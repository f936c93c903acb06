"""`upwell sessions`: how its processes are told apart."""

import re

import pytest

from streams.sessions_command import name_of


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("upwell-sessions-7d9f-x2", "sessions-upwell-sessions-7d9f-x2-17"),
        ("box.example.org", "sessions-box.example.org-17"),
        ("b\u00f6x:1", "sessions-b-x-1-17"),
        ("", "sessions--17"),
    ],
)
def test_a_process_is_named_by_its_host_and_number(host, name):
    assert name_of(host, 17) == name


def test_a_long_host_is_cut_and_the_number_is_not():
    name = name_of("h" * 300, 4_194_304)

    assert name.endswith("h-4194304")
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name)
