"""What training and evaluation print: progress bars on a terminal, plain lines elsewhere."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from tqdm import tqdm

from jaxrw.system.errors import RunError
from jaxrw.system.lines import BAR, Lines


class TrainingProgress:
    """A bar over all training images: epoch, loss, training accuracy under attack, images per second, time left."""

    def __init__(self, *, first_step: int, num_steps: int, batch_size: int, num_epochs: int) -> None:
        self._bar = tqdm(
            total=num_steps * batch_size,
            initial=first_step * batch_size,
            unit=" images",
            unit_scale=True,
            **BAR,
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
        tqdm(total=size, desc=name, unit=" images", unit_scale=True, leave=False, **BAR) as bar,
        contextlib.closing(Lines(lambda: f"{name}: {done:,} of {size:,} images")),
    ):
        yield update


def print_accuracy(name: str, attack: str, accuracy: float) -> None:
    """Prints the accuracy of a checkpoint under an attack, in percent, unless bars have shown it."""
    if not sys.stderr.isatty():
        print(f"{name}: {attack} {accuracy:.2f}%", flush=True)
