"""What AutoAttack prints while it runs: bars on a terminal, lines elsewhere."""

from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

from jaxrw.system.lines import BAR, Lines

if TYPE_CHECKING:
    from jaxrw.attacks.autoattack.result import Progress


class AutoAttackProgress:
    """Bars over AutoAttack's attacks, one after the other: examples still robust, time left."""

    def __init__(self, name: str = "", file: TextIO | None = None) -> None:
        """Begins; lines start with `name` and go to `file`, None: standard output."""
        self._name = f"{name}: " if name else ""
        self._bar: tqdm | None = None
        self._last: Progress | None = None
        self._lines = Lines(self._describe, file)

    def __call__(self, progress: "Progress") -> None:
        """Shows where an attack stands."""
        if self._bar is None or self._last is None or progress.attack != self._last.attack:
            self._close_bar()
            self._bar = tqdm(
                total=100,
                desc=f"{self._name}{progress.attack}",
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
                leave=False,
                **BAR,
            )
        self._last = progress
        self._bar.set_postfix_str(
            f"{progress.robust:,} of {progress.size:,} robust, "
            f"{tqdm.format_interval(progress.seconds_left)} left",
            refresh=False,
        )
        self._bar.update(100 * progress.fraction - self._bar.n)

    def _describe(self) -> str:
        if (last := self._last) is None:
            return f"{self._name}AutoAttack is being compiled"
        return (
            f"{self._name}{last.attack} {100 * last.fraction:.0f} % done, {last.robust:,} of {last.size:,} robust, "
            f"{tqdm.format_interval(last.seconds_left)} left"
        )

    def close(self) -> None:
        """Removes the bar and ends the lines."""
        self._close_bar()
        self._lines.close()

    def _close_bar(self) -> None:
        """Removes the bar; without a terminal, prints a line for an attack that is done."""
        if self._bar is None or self._last is None:
            return
        last = self._last
        if self._bar.disable and last.fraction == 1:  # Otherwise it was stopped.
            self._lines.print(f"{self._name}{last.attack} leaves {last.robust:,} of {last.size:,} robust")
        self._bar.close()
