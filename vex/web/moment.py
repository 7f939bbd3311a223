"""When a page is made, and until when what it tells stays right: ages, "3 days ago", grow by themselves."""

from __future__ import annotations

_AGES = (
    (365 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)
# What else grows old without a write that says so, such as a history that forgets its beginning, is seen within an
# hour.
_LONGEST_SECONDS = 3600
# So late an age may be: a list of what is pushed all the time would have to be made anew for each of its rows.
_SHORTEST_SECONDS = 5


class Moment:
    """The time of day at which a page is made; `until` is how long what it tells stays right, both in seconds since
    1970.
    """

    __slots__ = ("_until", "time")

    def __init__(self, time: float) -> None:
        self.time = time
        self._until = time + _LONGEST_SECONDS

    @property
    def until(self) -> float:
        """Until when a page may be given again; the past for one that may not."""
        return max(self._until, self.time + _SHORTEST_SECONDS) if self._until else 0

    def pass_by(self) -> None:
        """Note that the page tells what may be different a moment later, whatever the clock says."""
        self._until = 0

    def age_of(self, seconds: float) -> str:
        """Say how long ago something was."""
        age, longer = self.time - seconds, float("inf")
        for length, unit in _AGES:
            count = int(age // length)
            if count >= 1:
                self._right_until(seconds + min((count + 1) * length, longer))
                return f"{count} {unit}{'s' if count > 1 else ''} ago"
            longer = length
        self._right_until(seconds + 60 if age > -60 else seconds - 60)
        return "just now" if age > -60 else "in the future"

    def _right_until(self, end: float) -> None:
        self._until = min(self._until, end)
