"""Which numbers does a field of a crontab stand for, and how are numbers written as a field?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from django_tasks.exceptions import ScheduleError

Spec = int | str | Iterable[int]

_PART = re.compile(
    r"(?:(?P<star>\*)|(?P<first>[0-9]+|[A-Za-z]+)(?:-(?P<last>[0-9]+|[A-Za-z]+))?)(?:/(?P<step>[0-9]+))?"
)
_LONGEST = 1000
"""Characters of a field; all numbers of one written out are 169."""
_MONTHS = "January February March April May June July August September October November December"
_DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday"


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, the numbers that it can hold, and the names of these."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """The first is that of the lowest number. At least three letters of one are enough."""
    again: bool = False
    """The lowest number is also the one above the highest: Sunday is 0 and 7."""

    @property
    def every(self) -> tuple[int, ...]:
        return tuple(range(self.low, self.high + 1))

    def expand(self, spec: Spec) -> tuple[int, ...]:
        """Return the numbers that a field stands for, in order; raises ScheduleError for what it cannot hold."""
        if isinstance(spec, str):
            found = {self._folded(number) for part in self._parts_of(spec) for number in self._numbers(spec, part)}
        elif isinstance(spec, int):
            found = {self._checked(spec, spec)}
        elif isinstance(spec, Iterable):
            given = list(spec)
            found = {self._checked(given, number) for number in given}
        else:
            raise TypeError(f"{self.name} is a number, numbers or text such as '*/5', not {spec!r}.")
        if not found:
            raise self._refusal(spec, "nothing is in it")
        return tuple(sorted(found))

    def compact(self, numbers: tuple[int, ...], *, star: bool = True) -> str:
        """Return a short text that stands for these numbers; one that begins with * only where that is wanted."""
        if star and len(numbers) == self.high - self.low + 1:
            return "*"
        step = _step(numbers)
        if step and not self.names:
            whole = numbers[0] == self.low and numbers[-1] + step > self.high
            return f"*/{step}" if whole and star else f"{numbers[0]}-{numbers[-1]}/{step}"
        return ",".join(
            f"{self._written(first)}-{self._written(last)}"
            if last - first > 1
            else ",".join(self._written(number) for number in range(first, last + 1))
            for first, last in runs(numbers)
        )

    def title(self, number: int) -> str:
        """Return the name of a number."""
        return self.names[number - self.low]

    def _parts_of(self, spec: str) -> list[str]:
        if len(spec) > _LONGEST:
            raise self._refusal(f"{spec[:40]}...", f"longer than {_LONGEST} characters")
        return [part.strip() for part in spec.split(",")]

    def _numbers(self, spec: str, text: str) -> Iterable[int]:
        """Return the numbers of one part between commas; a range that runs backwards goes on from the lowest."""
        part = _PART.fullmatch(text)
        if part is None:
            raise self._refusal(spec, f"{text!r} is not understood" if text else "a part between commas is empty")
        step = int(part["step"]) if part["step"] else 1
        if not step:
            raise self._refusal(spec, "a step is 1 or more")
        if part["star"]:
            return self.every[::step]
        first = self._number(spec, part["first"])
        if part["last"] is None:
            if part["step"]:
                raise self._refusal(spec, f"a step needs a range: write {part['first']}-{self.high}/{step}")
            return (first,)
        last = self._number(spec, part["last"])
        if first == last:
            return (first,)
        first = self._folded(first)
        if last < first:
            return (*range(first, self.high + 1), *range(self.low, last + 1))[::step]
        return range(first, last + 1, step)

    def _number(self, spec: str, word: str) -> int:
        if word.isdecimal():
            return self._checked(spec, int(word), folded=False)
        if len(word) >= 3:
            for number, name in enumerate(self.names, start=self.low):
                if name.lower().startswith(word.lower()):
                    return number
        raise self._refusal(spec, f"{word!r} is not understood")

    def _checked(self, spec: Spec, number: int, *, folded: bool = True) -> int:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{self.name}={spec!r}: {number!r} is no whole number.")
        if not self.low <= number <= self.high + self.again:
            raise self._refusal(spec, f"{number} is too {'small' if number < self.low else 'large'}")
        return self._folded(number) if folded else number

    def _folded(self, number: int) -> int:
        return self.low if number > self.high else number

    def _written(self, number: int) -> str:
        return self.title(number)[:3].lower() if self.names else str(number)

    def _refusal(self, spec: Spec, reason: str) -> ScheduleError:
        allowed = f"{self.low} to {self.high + self.again}"
        if self.again:
            allowed += f" ({self.low} and {self.high + 1} are {self.names[0]})"
        if self.names:
            allowed += f", {self._written(self.low)} to {self._written(self.high)}"
        return ScheduleError(f"{self.name}={spec!r}: {reason}. Allowed are {allowed}; *, a-b, */n, a-b/n and lists.")


SECOND = Field("second", 0, 59)
MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY_OF_MONTH = Field("day_of_month", 1, 31)
MONTH_OF_YEAR = Field("month_of_year", 1, 12, tuple(_MONTHS.split()))
DAY_OF_WEEK = Field("day_of_week", 0, 6, tuple(_DAYS.split()), again=True)


def runs(numbers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the first and last numbers of each stretch without a hole."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def _step(numbers: tuple[int, ...]) -> int:
    """Return the distance of at least three numbers that all have the same one, above 1; else 0."""
    distances = {later - earlier for earlier, later in pairwise(numbers)}
    return distances.pop() if len(numbers) > 2 and len(distances) == 1 and distances != {1} else 0
