"""What can be adapted, and whether this machine is fit for it: for people and for programs."""

import subprocess
import sys

import pytest

from ttctune import doctor
from ttctune.backbone.recommended import RECOMMENDED
from ttctune.cli.main import main
from ttctune.doctor import Finding

FINDINGS = [Finding("memory", "ok", "plenty"), Finding("threads", "warning", "too many", "give --threads 2")]


def test_models_to_begin_with_are_a_line_each(ttctune):
    done = ttctune("models")
    assert done.code == 0 and "models PATTERN" in done.err
    for row in RECOMMENDED:
        (line,) = [line for line in done.out.splitlines() if line.startswith(row.model.name + " ")]
        assert all(text in line for text in (row.machine, row.trained_on, ",".join(row.model.sites)))
    assert ttctune("models", "--quiet").err == ""


def test_models_fit_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and [line for line in lines if not line.startswith(" ")] == [
        row.model.name for row in RECOMMENDED
    ]


def test_models_are_the_same_as_json(ttctune):
    rows = ttctune("models", "--json").json
    assert [row["name"] for row in rows] == [row.model.name for row in RECOMMENDED]
    assert rows[1]["pixels"] == [224, 224] and rows[1]["weights"] == {"fb_in1k": "apache-2.0"}


def test_models_that_match_a_pattern_are_shown_with_their_weights(ttctune):
    done = ttctune("models", "deit_tiny_patch*")
    assert done.code == 0 and "fb_in1k (apache-2.0)" in done.out and "deit_tiny_patch16_224 " in done.out
    assert ttctune("models", "deit_tiny_patch16", "--json").json[0]["parameters"] == 5_524_416


@pytest.mark.parametrize("pattern", ["xyzzy", "resnet18"])
def test_a_pattern_without_a_model_is_one_line(ttctune, pattern):
    done = ttctune("models", pattern)
    assert done.code == 1 and done.out == "" and len(done.err.splitlines()) == 1 and pattern in done.err


def test_doctor_shows_each_check_with_its_cure(ttctune, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: FINDINGS)
    done = ttctune("doctor")
    assert done.code == 0 and "plenty" in done.out and "too many; give --threads 2" in done.out
    assert "plenty" not in ttctune("doctor", "--quiet").out
    assert ttctune("doctor", "--json").json[1]["cure"] == "give --threads 2"


def test_doctor_fails_only_where_something_is_broken(ttctune, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: [*FINDINGS, Finding("torch", "problem", "broken", "install it")])
    assert ttctune("doctor").code == 1 and ttctune("doctor", "--json").json[2]["state"] == "problem"


def test_doctor_takes_threads_and_refuses_what_is_no_number(ttctune, monkeypatch):
    set_to = []
    monkeypatch.setattr("torch.set_num_threads", set_to.append)
    monkeypatch.setattr(doctor, "examine", lambda: FINDINGS)
    assert ttctune("doctor", "--threads", 3).code == 0 and set_to == [3]
    assert ttctune("doctor", "--threads", "many").code == 1


def test_help_and_the_list_of_models_need_no_torch():
    code = "import sys; from ttctune.cli.main import main; main(['models']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
