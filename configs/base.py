"""Every field of a run, with its unit, its source and what it does.

The other configs change a few lines of this one. The values are the paper's for ResNet-18 on CIFAR-10 (Section 4.1).
Each field can be set on the command line: `--config.method.name=mail`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the paper's ResNet-18 on CIFAR-10 with Ours+MAIL; locked, so that a misspelt field raises."""
    config = ConfigDict()

    # Of initial parameters, order, augmentation and attack starts. Which images validate does not depend on it.
    config.seed = 0

    config.dataset = ConfigDict()
    config.dataset.name = "cifar10"  # see `jaxrw.data.load`
    config.dataset.data_dir = placeholder(str)  # None: that of TFDS, ~/tensorflow_datasets
    config.dataset.train_size = placeholder(int)  # training images; None: all but the validation images
    config.dataset.validation_size = 1000  # images held out to choose the best checkpoint; 0: no best
    config.dataset.test_size = placeholder(int)  # test images; None: all
    config.dataset.downscale = 1  # 2: half the height and width, each pixel the mean of 2x2
    config.dataset.pad = 4  # zeros on each side before the random crop, in pixels; 0: no crop
    config.dataset.flip = True  # mirror left to right with probability 1/2

    config.model = ConfigDict()
    config.model.name = "resnet18"  # a key of `jaxrw.networks.ARCHITECTURES`
    config.model.depth = placeholder(int)  # None: the default of the network; "wrn" has none
    config.model.width = placeholder(int)  # channels of a ResNet, factor of a WideResNet; None as for depth
    # One number per channel, in units of [0, 1]. None as in the paper: inputs stay in [0, 1].
    config.model.mean = placeholder(tuple)
    config.model.std = placeholder(tuple)
    # float32 or bfloat16, of activations in training. Parameters, statistics, logits and evaluation stay float32.
    config.model.dtype = "float32"

    config.method = ConfigDict()
    config.method.name = "ours_mail"  # a key of `jaxrw.methods.METHODS`
    config.method.warmup_epochs = 75  # number of first epochs, in which all weights are 1
    config.method.tau = 2.0  # of the reweighted margin, at least 2 (Eq. 10)
    config.method.similarity = True  # False omits the cosine (Tables 4 and 7)
    config.method.beta = 0.5  # MAIL's shift (Eq. 16); -0.5 is Algorithm 1, line 10 as printed
    config.method.gamma = 10.0  # MAIL's slope (Eq. 16)
    config.method.alpha = 2.0  # WMMR's slope; ours_wmmr has none (Eq. 15)
    config.method.multiplier = 3.0  # M, factor of the weights of MAIL and WMMR, also of ours (Appendix C)
    config.method.lam = -1.0  # GAIRAT's shift Lambda
    config.method.grad_through_weights = False  # True: differentiate the weights, as WMMR's public code

    # Of training: the last iterate of PGD on the cross-entropy, with BatchNorm in evaluation mode.
    config.attack = ConfigDict()
    config.attack.norm = "linf"  # or l2, l1: of eps and step_size
    config.attack.eps = 8 / 255  # radius in pixel units of [0, 1]; 128 / 255 is usual for l2
    config.attack.step_size = 2 / 255  # 15 / 255 is usual for l2
    config.attack.num_steps = 10  # 0 trains on clean images
    # uniform: in the ball; normal: 0.001 * standard normal, as MAIL's code; none: the image itself.
    config.attack.start = "uniform"

    config.optim = ConfigDict()
    config.optim.num_epochs = 120
    config.optim.batch_size = 128  # global, shared by all devices
    config.optim.learning_rate = 0.01
    config.optim.momentum = 0.9
    config.optim.weight_decay = 3.5e-3  # of all parameters, BatchNorm's too
    config.optim.milestones = (75, 90, 100)  # 0-based epochs at whose start the learning rate drops
    config.optim.decay = 0.1  # factor of each drop

    config.evaluation = ConfigDict()
    # Columns of the table, keys of `jaxrw.attacks.suite.ATTACKS`. aa, standard AutoAttack, takes by far the longest.
    config.evaluation.attacks = ("clean", "fgsm", "pgd20", "pgd100", "cw_pgd", "apgd_ce", "aa")
    config.evaluation.norm = "linf"  # or l2, l1: of eps and step_size
    config.evaluation.eps = 8 / 255  # 0.5 is usual for l2
    config.evaluation.step_size = 2 / 255  # of PGD; MAIL and TRADES use 0.003
    config.evaluation.version = "standard"  # of AutoAttack; or plus
    config.evaluation.batch_size = 500  # examples at a time over all devices; changes no result
    config.evaluation.save_adversarial = False  # True: write adversarial images to .npz files
    config.evaluation.selection_steps = 20  # of PGD on the validation images, to choose the best checkpoint
    config.evaluation.figure_examples = 1000  # test images in the figures, under PGD-20; 0: no figures
    # Radii of the curve of robust accuracy, in multiples of evaluation.eps; (): no curve.
    config.evaluation.figure_eps = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1  # the last epoch and a new best are always saved
    config.checkpoint.every_steps = placeholder(int)  # also within an epoch; None: only after epochs
    # True: keep a copy of the run at the end of its warm-up in warmup/, for other runs with --warmup_from.
    config.checkpoint.keep_warmup = False

    return config.lock()
