"""Times and sizes as people and Slurm write them: 8h, 1-12:00:00, 64G."""

import re

from ablate.core.errors import AblateError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WORDS = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_SLURMS = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")
_SIZE = re.compile(r"(\d+)\s*([KMGT])(?:i?B)?", re.IGNORECASE)


def seconds(given: object) -> float:
    """-> seconds of 8h, 1d12h, 90m, of Slurm's own 8:00:00, 1-12, 1-12:30:00, or of a number of seconds.

    Raises AblateError. A bare number in a string, which is minutes to Slurm, is refused for what it may mean here.
    """
    if isinstance(given, int | float) and not isinstance(given, bool) and given > 0:
        return float(given)
    text = str(given).replace(" ", "").lower()
    if _WORDS.fullmatch(text):
        return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    match = _SLURMS.fullmatch(text)
    if match and (match["days"] or ":" in match["fields"]):
        return _slurms_seconds(int(match["days"] or 0), list(map(int, match["fields"].split(":"))), match["days"])
    raise AblateError(f"{given!r} is no time. Possible: 8h, 90m, 1d12h, 08:00:00, 1-12:00:00, or a number of seconds")


def _slurms_seconds(days: int, fields: list[int], is_from_hours: object) -> float:
    """Without days two fields are minutes and seconds; after days they are hours and minutes."""
    if not is_from_hours and len(fields) == 2:
        fields = [0, *fields]
    hours, minutes, rest = [*fields, 0, 0][:3]
    return float(days * 86400 + hours * 3600 + minutes * 60 + rest)


def slurms_time(num_seconds: float) -> str:
    """-> as `sbatch --time` takes it, in whole minutes, never less: 1-12:00:00."""
    minutes = -(-int(num_seconds) // 60)
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60:02}:{rest % 60:02}:00"
    return f"{days}-{clock}" if days else clock


def slurms_size(given: object) -> str:
    """-> as `sbatch --mem` takes it: 64G. Raises AblateError."""
    match = _SIZE.fullmatch(str(given).strip())
    if not match:
        raise AblateError(f"{given!r} is no amount of memory. Possible: 64G, 64GB, 500M, 1T")
    return match[1] + match[2].upper()
