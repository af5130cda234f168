"""Every field of an experiment, once: its unit, its source, what it does.

The other configs are this one and a few lines. Values are the paper's for ResNet-18 on CIFAR-10 (Section 4.1).
Any field can be set from the command line: `--config.method.name=mail`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    """The paper's ResNet-18 on CIFAR-10 with Ours+MAIL; locked, so that a misspelt field raises."""
    config = ConfigDict()

    # Initial weights, order, augmentation, attack starts. The held-out validation images do not depend on it.
    config.seed = 0

    config.dataset = ConfigDict()
    config.dataset.name = "cifar10"  # cifar10, cifar100, digits, folder, or a prepared TFDS set of images
    config.dataset.data_dir = placeholder(str)  # None: TFDS's own place, ~/tensorflow_datasets
    config.dataset.train_size = placeholder(int)  # images trained on; None: all but the validation images
    config.dataset.validation_size = 1000  # held out of training to choose the best checkpoint; 0: no best
    config.dataset.test_size = placeholder(int)  # images evaluated on; None: all
    config.dataset.downscale = 1  # 2: half the height and width, the mean of 2x2 pixels
    config.dataset.pad = 4  # pixels of zeros around the image before the random crop; 0: no crop
    config.dataset.flip = True  # mirror left and right with probability 1/2

    config.model = ConfigDict()
    config.model.name = "resnet18"  # resnet18, wrn34_10, wrn
    config.model.depth = placeholder(int)  # None: 18 or 34; wrn has to say
    config.model.width = placeholder(int)  # None: 64 channels, or factor 10 for WideResNets; wrn has to say
    # One number per channel, in units of [0, 1]; None as in the paper: inputs stay in [0, 1].
    config.model.mean = placeholder(tuple)
    config.model.std = placeholder(tuple)
    # Of the activations in training: float32 or bfloat16. Weights, statistics, logits and evaluation stay float32.
    config.model.dtype = "float32"

    config.method = ConfigDict()
    config.method.name = "ours_mail"  # standard, gairat, ewat, wmmr, mail, ours_wmmr, ours_mail
    config.method.warmup_epochs = 75  # all weights are 1 in the epochs before this 0-based one
    config.method.tau = 2.0  # margin reweighting's, at least 2 (Eq. 10)
    config.method.similarity = True  # False leaves the cosine out (Tables 4 and 7)
    config.method.beta = 0.5  # MAIL's shift (Eq. 16); -0.5 is Algorithm 1 line 10 as it is printed
    config.method.gamma = 10.0  # MAIL's slope (Eq. 16)
    config.method.alpha = 2.0  # WMMR's steepness; ours_wmmr has none (Eq. 15)
    config.method.multiplier = 3.0  # M, the factor of MAIL's and WMMR's weights, ours too (Appendix C)
    config.method.lam = -1.0  # GAIRAT's shift Lambda
    config.method.grad_through_weights = False  # True: weights are differentiated, as in WMMR's public code

    # PGD on the cross-entropy, last iterate; BatchNorm in evaluation mode.
    config.attack = ConfigDict()
    config.attack.eps = 8 / 255  # L-infinity radius in pixel units of [0, 1]
    config.attack.step_size = 2 / 255
    config.attack.num_steps = 10  # 0: training on clean images
    config.attack.start = "uniform"  # uniform in the ball, normal (0.001 * normal, as MAIL's code), none

    config.optim = ConfigDict()
    config.optim.num_epochs = 120
    config.optim.batch_size = 128  # global: all devices share it
    config.optim.learning_rate = 0.01
    config.optim.momentum = 0.9
    config.optim.weight_decay = 3.5e-3  # on all parameters, BatchNorm's too
    config.optim.milestones = (75, 90, 100)  # 0-based epochs at whose start the learning rate drops
    config.optim.decay = 0.1  # factor of each drop

    config.evaluation = ConfigDict()
    # Columns of the table; aa is AutoAttack's standard set, by far the longest.
    config.evaluation.attacks = ("clean", "fgsm", "pgd20", "pgd100", "cw_pgd", "apgd_ce", "aa")
    config.evaluation.eps = 8 / 255
    config.evaluation.step_size = 2 / 255  # PGD's; MAIL and TRADES use 0.003
    config.evaluation.batch_size = 500  # examples at a time over all devices; changes no number
    config.evaluation.save_adversarial = False  # True: adversarial images of each attack go to .npz files
    config.evaluation.selection_steps = (
        20  # of PGD on the validation images, which choose the best checkpoint
    )
    config.evaluation.figure_examples = 1000  # test images that the figures show, under PGD-20; 0: no figures
    # Radii of the curve of robust accuracy, as multiples of evaluation.eps; (): no curve.
    config.evaluation.figure_eps = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1  # the last epoch and a new best are always saved
    config.checkpoint.every_steps = placeholder(int)  # also within an epoch, every so many steps
    # True: keep the run as it is when its warm-up ends, in warmup/, where others begin with --warmup_from.
    config.checkpoint.keep_warmup = False

    return config.lock()
