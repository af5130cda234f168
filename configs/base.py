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

    # Where metrics go beside metrics.jsonl: tensorboard, wandb, or one of your own, see docs/logging.md.
    config.writers = ("tensorboard",)

    config.dataset = ConfigDict()
    config.dataset.name = "cifar10"  # see `jaxrw.data.load`
    config.dataset.data_dir = placeholder(str)  # None: that of TFDS, ~/tensorflow_datasets
    config.dataset.train_size = placeholder(int)  # training images; None: all but the validation images
    config.dataset.validation_size = 1000  # images held out to choose the best checkpoint; 0: no best
    # Share in (0, 1) of the training images that is held out instead of validation_size; None: validation_size is.
    config.dataset.validation_share = placeholder(float)
    config.dataset.test_size = placeholder(int)  # test images; None: all
    # validation: evaluation attacks the validation images, to choose hyperparameters without the test images.
    config.dataset.test_split = "test"
    config.dataset.downscale = 1  # 2: half the height and width, each pixel the mean of 2x2
    config.dataset.pad = 4  # zeros on each side before the random crop, in pixels; 0: no crop
    config.dataset.flip = True  # mirror left to right with probability 1/2

    config.model = ConfigDict()
    config.model.name = "resnet18"  # a key of `jaxrw.networks.ARCHITECTURES`
    config.model.depth = placeholder(int)  # None: the default of the network; "wrn" has none
    config.model.width = placeholder(int)  # channels of a ResNet, factor of a WideResNet; None as for depth
    # Of some networks only, see `jaxrw.networks.create`; None: the usual one, and that of networks without the field.
    config.model.activation = placeholder(str)  # silu or relu, of DeepMind's networks
    config.model.shortcut = placeholder(str)  # activated or raw, of preact_resnet18
    config.model.last_norm = placeholder(bool)  # of preact_resnet18
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
    config.method.constant = 1.0  # weight of "constant", the control experiment
    config.method.temperature = 1.0  # r of "done", in nats
    # Divide weights by their batch mean; None: as the method does.
    config.method.normalize = placeholder(bool)
    config.method.grad_through_weights = False  # True: differentiate the weights, as WMMR's public code

    # What is weighted. standard: cross-entropy of adversarial images; trades, whose attack ascends the KL divergence
    # and whose weights multiply that alone; mart, whose weights multiply the boosted cross-entropy alone.
    config.objective = ConfigDict()
    config.objective.name = "standard"  # a key of `jaxrw.methods.OBJECTIVES`
    config.objective.lam = 6.0  # factor of the KL divergence; TRADES 6, MART and MAIL-TRADES 5
    # Share of each label that is spread over all classes; none in the KL divergence.
    config.objective.smoothing = 0.0
    # Whether the clean images of trades and mart count in BatchNorm's running statistics: True as in MAIL's code, where
    # they come first; False as in DeepMind's, where only adversarial ones do.
    config.objective.clean_statistics = True

    # Adversarial weight perturbation (Wu et al. 2020): each step is computed at weights that ascend the loss.
    config.awp = ConfigDict()
    # Length relative to the weights: 0.01, 0.005 for trades; None: no AWP.
    config.awp.gamma = placeholder(float)
    config.awp.start_epoch = 0  # 0-based

    # Of the parameters over steps; if there is one, it is validated, chosen as best, evaluated and exported.
    config.average = ConfigDict()
    config.average.name = "none"  # none, ema: exponential, each step, swa: plain mean of the ends of epochs
    config.average.decay = 0.995  # of ema
    config.average.start_epoch = 0  # 0-based; before it the average is the parameters themselves

    # Of training: the last iterate of PGD on the cross-entropy, with BatchNorm in evaluation mode.
    config.attack = ConfigDict()
    config.attack.norm = "linf"  # or l2, l1: of eps and step_size
    config.attack.eps = 8 / 255  # radius in pixel units of [0, 1]; 128 / 255 is usual for l2
    config.attack.step_size = 2 / 255  # 15 / 255 is usual for l2
    config.attack.num_steps = 10  # 0 trains on clean images
    # uniform: in the ball; normal: 0.001 * standard normal, as MAIL's code; none: the image itself.
    config.attack.start = "uniform"

    # More training images: .npz files with `image` uint8 [N, H, W, C] and `label`, see docs/data.md.
    config.extra = ConfigDict()
    config.extra.path = placeholder(str)  # a file, or a directory of files; None: no extra images
    config.extra.share = 0.7  # of every batch

    config.optim = ConfigDict()
    config.optim.num_epochs = 120
    config.optim.batch_size = 128  # global, shared by all devices
    # milestones; cosine: to 0 at the end; one_cycle: from 1/25 of it up to `learning_rate` and down to 0.
    config.optim.schedule = "milestones"
    config.optim.learning_rate = 0.01  # the highest
    config.optim.milestones = (75, 90, 100)  # 0-based epochs at whose start the learning rate drops
    config.optim.decay = 0.1  # factor of each drop
    config.optim.rise_epochs = 0.0  # linear rise from 0 at the beginning of milestones and cosine
    config.optim.peak = 0.025  # share of all steps after which one_cycle is highest
    config.optim.momentum = 0.9
    config.optim.nesterov = False
    config.optim.weight_decay = 3.5e-3
    config.optim.decay_all = True  # weight decay also of biases and BatchNorm; False: of kernels alone
    config.optim.clip_norm = placeholder(float)  # largest norm of the whole gradient; None: any

    config.evaluation = ConfigDict()
    # Columns of the table, keys of `jaxrw.attacks.suite.ATTACKS`. aa takes by far the longest; apgd_t, its first two
    # attacks, a quarter of that.
    config.evaluation.attacks = ("clean", "fgsm", "pgd20", "pgd100", "cw_pgd", "apgd_ce", "aa")
    config.evaluation.norm = "linf"  # or l2, l1: of eps and step_size
    config.evaluation.eps = 8 / 255  # 0.5 is usual for l2
    config.evaluation.step_size = 2 / 255  # of PGD; MAIL and TRADES use 0.003
    config.evaluation.version = "standard"  # of AutoAttack; or plus
    # tensorfloat32, bfloat16: AutoAttack searches in that precision, and float32 confirms; see docs/evaluation.md.
    config.evaluation.surrogate = "none"
    # Directory of corrupted test images, as CIFAR-10-C, for the column "corruptions"; see docs/data.md.
    config.evaluation.corruptions_dir = placeholder(str)
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
