"""What a profile of kind slurm may say: what is wrong is named, with what is possible."""

import pytest

from ablate.core.errors import AblateError
from ablate.execution.profile_options import require_valid
from ablate.execution.profiles import Profile
from ablate.execution.slurm.options import SlurmOptions


def checked(**options):
    require_valid(Profile("a100", "slurm", options))
    return SlurmOptions.model_validate(options)


WRONG = {
    "partition": ("gpu; rm -rf /", "a sign of the shell"),
    "time": ("tomorrow", "8h, 90m, 1d12h"),
    "memory": ("lots", "64G, 64GB, 500M"),
    "gres": ("a card", "gpu:1, gpu:a100:1"),
    "constraint": ('a100" --uid=0', "a100&nvlink"),
    "cpus": (0, "at least 1"),
    "nice": (-5, "at least 0"),
    "partitoin": ("gpu", "Did you mean 'partition'?"),
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_named_with_what_is_possible(key):
    given, possible = WRONG[key]
    with pytest.raises(AblateError) as caught:
        checked(**{key: given})
    assert "a100" in str(caught.value)
    assert key in str(caught.value)
    assert possible in str(caught.value)


def test_every_mistake_is_told_at_once():
    with pytest.raises(AblateError) as caught:
        checked(time="tomorrow", memory="lots")
    assert "tomorrow" in str(caught.value)
    assert "lots" in str(caught.value)


TIMES = {"8h": 28800, "90m": 5400, "1d12h": 129600, "08:00:00": 28800, "1-12:00:00": 129600, "30:00": 1800, 600: 600}


@pytest.mark.parametrize("given", TIMES)
def test_a_time_is_read_as_people_and_slurm_write_it(given):
    options = checked(time=given)
    assert options.time == options.time_s == TIMES[given]


def test_a_bare_number_in_quotes_is_refused_since_it_would_be_minutes_to_slurm():
    with pytest.raises(AblateError, match="no time"):
        checked(time="480")


def test_a_job_too_short_to_be_told_to_save_is_refused():
    with pytest.raises(AblateError, match=r"signal_lead_s"):
        checked(time="2m")
    assert checked(time="2m", signal_lead_s=30).time == 120


@pytest.mark.parametrize("name", ["comment", "array", "no-requeue", "signal", "output", "job-name", "export", "wrap"])
def test_what_jobs_are_known_and_warned_by_cannot_be_overridden(name):
    with pytest.raises(AblateError, match="ablate's own"):
        checked(extra={name: "x"})


def test_what_has_a_key_of_its_own_is_said_there():
    with pytest.raises(AblateError, match="the profile's own key 'memory'"):
        checked(extra={"mem": "64G"})


@pytest.mark.parametrize("name", ["--reservation", "p", "Reservation", "a b"])
def test_only_long_names_are_options(name):
    with pytest.raises(AblateError, match="no long option"):
        checked(extra={name: "x"})


SECRETS = ["export HF_TOKEN=hf_abcdefghijklmnopqrstuv", "export WANDB_API_KEY=0123456789", "curl https://u:pw@host/x"]


@pytest.mark.parametrize("line", SECRETS)
def test_a_secret_in_a_script_is_refused_without_being_told(line):
    for options in ({"setup": [line]}, {"extra": {"admin-comment": line}}):
        with pytest.raises(AblateError) as caught:
            checked(**options)
        assert "kept in runs/ and in job scripts" in str(caught.value)
        assert not any(word in str(caught.value) for word in ("abcdefghijkl", "0123456789", "pw@"))


def test_a_token_that_is_known_here_is_refused_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary-of-a-token")
    with pytest.raises(AblateError) as caught:
        checked(setup=["login canary-of-a-token"])
    assert "canary" not in str(caught.value)


def test_a_secret_that_the_node_reads_itself_is_none():
    lines = ["export HF_TOKEN=$(cat ~/.hf_token)", 'export API_KEY="$KEY"', "module load cuda"]
    assert checked(setup=lines).setup == tuple(lines)


def test_a_job_has_a_card_when_it_asks_for_one_and_threads_as_it_has_processors():
    assert (checked(gres="gpu:a100:1").device, checked(cpus=8).device) == ("cuda", "cpu")
    assert checked(extra={"gpus": 1}).device == "cuda"
    assert checked(gres="tmpdisk:10").device == "cpu"
    assert checked(cpus=8).threads == 8
    assert checked(cpus=8, threads=4).threads == 4
