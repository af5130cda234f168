"""What training and evaluation print: progress bars on a terminal, plain lines elsewhere."""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from tqdm import tqdm

from jaxrw.attacks import Progress
from jaxrw.system.errors import RunError

# No bar where standard error is not a terminal.
_BAR: dict[str, Any] = {"dynamic_ncols": True, "disable": None}


# Where there is no bar, nothing is silent for longer.
LINE_SECONDS = 30


class Lines:
    """Prints lines, and one that says where the work stands when there has been none for `LINE_SECONDS`.

    A thread prints those, because a step or a compilation may take longer. On a terminal bars say it.
    """

    def __init__(self, describe: Callable[[], str]) -> None:
        """Starts the thread; `describe` returns where the work stands."""
        self._describe = describe
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if not sys.stderr.isatty():
            self._thread.start()

    def print(self, line: str) -> None:
        """Prints a line."""
        self._last = time.monotonic()
        print(line, flush=True)

    def _watch(self) -> None:
        while not self._ended.wait(max(0, self._last + LINE_SECONDS - time.monotonic())):
            if time.monotonic() >= self._last + LINE_SECONDS:
                self.print(self._describe())

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


class TrainingProgress:
    """A bar over all training images: epoch, loss, training accuracy under attack, images per second, time left."""

    def __init__(self, *, first_step: int, num_steps: int, batch_size: int, num_epochs: int) -> None:
        self._bar = tqdm(
            total=num_steps * batch_size,
            initial=first_step * batch_size,
            unit=" images",
            unit_scale=True,
            **_BAR,
        )
        self._batch_size, self._num_epochs = batch_size, num_epochs
        self._first_step, self._steps_per_epoch = first_step, num_steps // num_epochs
        self._done, self._began = first_step, time.monotonic()
        self._lines = Lines(self._describe)
        self._pending: tuple[int, int, Mapping[str, jax.Array]] | None = None

    def step(self, number: int, epoch: int, sums: Mapping[str, jax.Array]) -> None:
        """Counts step `number` and shows the sums of the previous one, so that the host never waits for a step."""
        self.flush()
        self._pending = number, epoch, sums
        self._done = number + 1
        self._bar.update(self._batch_size)

    def flush(self) -> None:
        """Shows the sums of the last step; raises RunError if its loss is not finite."""
        if self._pending is None:
            return
        (number, epoch, sums), self._pending = self._pending, None
        examples, loss = float(sums["examples"]), float(sums["loss"])
        if not math.isfinite(loss):
            raise divergence_error(f"the loss is {loss}", number, epoch)
        self._bar.set_postfix_str(
            f"epoch {epoch + 1}/{self._num_epochs}, loss {loss / examples:.3f}, "
            f"accuracy {100 * float(sums['correct']) / examples:.1f}%",
            refresh=False,
        )

    def epoch(
        self, epoch: int, *, train: Mapping[str, Any], validation: Mapping[str, float], best: bool
    ) -> None:
        """Prints a line for an epoch that has ended, above the bar if there is one."""
        accuracies = "".join(f"  {name} {value:.1f}%" for name, value in validation.items())
        self.line(
            f"epoch {epoch + 1}/{self._num_epochs}  loss {train['loss']:.3f}  accuracy {train['accuracy']:.1f}%  "
            f"weight {train['mean_weight']:.3f}  light {train['light_share']:.2f}"
            f"{'  validation' if accuracies else ''}{accuracies}  "
            f"{train['images_per_second']:.3g} images/s{'  best' if best else ''}"
        )

    def line(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar.disable:
            self._lines.print(text)
        else:
            self._bar.write(text)

    def _describe(self) -> str:
        epoch, done = divmod(self._done, self._steps_per_epoch)
        if self._done == self._first_step:
            return f"epoch {epoch + 1}/{self._num_epochs}: compiling the training step"
        if not done:
            return f"epoch {epoch}/{self._num_epochs}: all steps done, validating"
        images = (self._done - self._first_step) * self._batch_size
        return (
            f"epoch {epoch + 1}/{self._num_epochs}: step {done:,} of {self._steps_per_epoch:,}, "
            f"{images / (time.monotonic() - self._began):.3g} images/s"
        )

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._lines.close()
        self._bar.close()


def divergence_error(reason: str, step: int, epoch: int) -> RunError:
    """Returns the error of a run that diverged at a step of a 0-based epoch."""
    return RunError(
        f"{reason} at step {step:,} (epoch {epoch + 1}); the checkpoints before it are kept: "
        "try a smaller optim.learning_rate"
    )


@contextlib.contextmanager
def evaluation_bar(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar over `size` test images under one attack; yields a function that counts a number of images."""
    done = 0

    def update(number: int) -> None:
        nonlocal done
        done += number
        bar.update(number)

    with (
        tqdm(total=size, desc=name, unit=" images", unit_scale=True, leave=False, **_BAR) as bar,
        contextlib.closing(Lines(lambda: f"{name}: {done:,} of {size:,} images")),
    ):
        yield update


def print_accuracy(name: str, attack: str, accuracy: float) -> None:
    """Prints the accuracy of a checkpoint under an attack, in percent, unless bars have shown it."""
    if not sys.stderr.isatty():
        print(f"{name}: {attack} {accuracy:.2f}%", flush=True)


class AutoAttackProgress:
    """Bars over AutoAttack's attacks, one after the other: examples still robust, time left."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm | None = None
        self._last: Progress | None = None
        self._lines = Lines(self._describe)

    def __call__(self, progress: Progress) -> None:
        """Shows where an attack stands."""
        if self._bar is None or self._last is None or progress.attack != self._last.attack:
            self._close_bar()
            self._bar = tqdm(
                total=100,
                desc=f"{self._name}: {progress.attack}",
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
                leave=False,
                **_BAR,
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
            return f"{self._name}: AutoAttack is being compiled"
        return (
            f"{self._name}: {last.attack} {100 * last.fraction:.0f} % done, {last.robust:,} of {last.size:,} robust, "
            f"{tqdm.format_interval(last.seconds_left)} left"
        )

    def close(self) -> None:
        """Removes the bar and ends the lines."""
        self._close_bar()
        self._lines.close()

    def _close_bar(self) -> None:
        """Removes the bar; without a terminal, prints a line for the attack that is done."""
        if self._bar is None or self._last is None:
            return
        if self._bar.disable:
            last = self._last
            self._lines.print(f"{self._name}: {last.attack} leaves {last.robust:,} of {last.size:,} robust")
        self._bar.close()
