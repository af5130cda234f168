"""What a person sees while a run trains or is evaluated: a bar on a terminal, plain lines elsewhere."""

import math
import sys

from tqdm import tqdm

from jaxrw.system.errors import RunError


class TrainingProgress:
    """Bar over all training images: epoch, loss, training accuracy under attack, images per second, time left."""

    def __init__(self, *, first_step, num_steps, batch_size, num_epochs):
        self._bar = tqdm(
            total=num_steps * batch_size,
            initial=first_step * batch_size,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None,  # off where the output is no terminal
        )
        self._batch_size, self._num_epochs = batch_size, num_epochs
        self._pending = None

    def step(self, number, epoch, sums):
        """Count step `number`; shows the sums of the step before, so that the host never waits for this one."""
        self.settle()
        self._pending = number, epoch, sums
        self._bar.update(self._batch_size)

    def settle(self):
        """Show the step that is still pending; raises RunError where its loss is not finite."""
        if self._pending is None:
            return
        (number, epoch, sums), self._pending = self._pending, None
        examples, loss = float(sums["examples"]), float(sums["loss"])
        if not math.isfinite(loss):
            raise not_finite(f"the loss is {loss}", number, epoch)
        self._bar.set_postfix_str(
            f"epoch {epoch + 1}/{self._num_epochs}, loss {loss / examples:.3f}, "
            f"accuracy {100 * float(sums['correct']) / examples:.1f}%",
            refresh=False,
        )

    def epoch(self, epoch, *, train, validation, best):
        """A line for the epoch that ended: above the bar on a terminal, plain elsewhere."""
        measured = "".join(f"  {name} {value:.1f}%" for name, value in validation.items())
        self._print(
            f"epoch {epoch + 1}/{self._num_epochs}  loss {train['loss']:.3f}  accuracy {train['accuracy']:.1f}%  "
            f"weight {train['mean_weight']:.3f}  light {train['light_share']:.2f}"
            f"{'  validation' if measured else ''}{measured}  "
            f"{train['images_per_second']:.3g} images/s{'  best' if best else ''}"
        )

    def _print(self, line):
        """A line that is seen at once: above the bar, or flushed where there is none."""
        if self._bar.disable:
            print(line, flush=True)
        else:
            self._bar.write(line)

    def close(self):
        """Leave the bar as it stands."""
        self._bar.close()


def not_finite(what, number, epoch):
    """The end of a run that diverged, at a step of a 0-based epoch."""
    return RunError(
        f"{what} at step {number:,} (epoch {epoch + 1}); the checkpoints before it are kept: "
        "try a smaller optim.learning_rate"
    )


def evaluation_bar(name, size):
    """Bar over the test images under one attack; a context manager whose `update` takes a number of images."""
    return tqdm(
        total=size, desc=name, unit=" images", unit_scale=True, dynamic_ncols=True, disable=None, leave=False
    )


def print_measured(name, attack, accuracy):
    """A line for an attack that is done; on a terminal the bars have told."""
    if not sys.stderr.isatty():
        print(f"{name}: {attack} {accuracy:.2f}%", flush=True)


class AutoAttackProgress:
    """Bar over AutoAttack's attacks, one after the other: examples still robust, time left."""

    def __init__(self, name):
        self._name, self._bar, self._attack, self._done = name, None, None, 0.0

    def __call__(self, progress):
        """Take a `jaxrw.attacks.Progress`."""
        if progress.attack != self._attack:
            self.close()
            self._attack, self._done = progress.attack, 0.0
            self._bar = tqdm(
                total=100,
                desc=f"{self._name}: {progress.attack}",
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
                dynamic_ncols=True,
                disable=None,
                leave=False,
            )
        self._robust, self._size = progress.robust, progress.size
        self._bar.set_postfix_str(
            f"{progress.robust:,} of {progress.size:,} robust, "
            f"{tqdm.format_interval(progress.seconds_left)} left",
            refresh=False,
        )
        self._bar.update(100 * progress.fraction - self._done)
        self._done = 100 * progress.fraction

    def close(self):
        """Take the bar away; where there is none, leave a line for the attack that is done."""
        if self._bar is not None:
            if self._bar.disable:
                print(
                    f"{self._name}: {self._attack} leaves {self._robust:,} of {self._size:,} robust",
                    flush=True,
                )
            self._bar.close()
