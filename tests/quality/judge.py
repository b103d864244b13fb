"""An independent judge of generated digits: a calibrated SVM, and distances in pixels.

It shares nothing with the package but the pixels: scikit-learn is trained on the real training split and asked about
real held-out digits and generated ones side by side.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin_min
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

SMALL = SVC(gamma=0.25, C=10)  # of 8x8 pixels
LARGE = make_pipeline(PCA(50, random_state=0), SVC(gamma=0.02, C=10))  # of 28x28


@dataclass(frozen=True)
class Verdict:
    """What the judge found of a set of images, and of the real held-out ones beside it.

    ``right`` is the share that has the class it was asked for, ``spread`` the median distance of two of one class,
    ``copies`` the share that is nearer to a training image than 99% of the held-out ones are.
    """

    right: float
    real_right: float
    confidence: float
    real_confidence: float
    classes: tuple[int, ...]
    spread: float
    real_spread: float
    distance: float
    real_distance: float
    p_nearer: float
    copies: float

    def __str__(self):
        return (
            f"class asked for {self.right:.3f} (real {self.real_right:.3f}), mean top probability "
            f"{self.confidence:.3f} (real {self.real_confidence:.3f}), classes {self.classes}, median distance of two "
            f"of a class {self.spread:.2f} (real {self.real_spread:.2f}), to the nearest training image "
            f"{self.distance:.3f} (real {self.real_distance:.3f}), one-sided p that it is smaller {self.p_nearer:.3f}, "
            f"copies {self.copies:.3f}"
        )


class Judge:
    """Trained once on real images, uint8 [N, 1, H, W], and their labels."""

    def __init__(self, train, labels, held_out, held_out_labels, classifier=SMALL):
        self._train, held_out = _flat(train), _flat(held_out)
        self._svm = CalibratedClassifierCV(classifier, method="temperature").fit(self._train, labels)
        real = self._svm.predict_proba(held_out)
        self.accuracy = np.mean(real.argmax(1) == held_out_labels)
        self._confidence, self._near = real.max(1).mean(), self._nearest(held_out)
        self._spread = _spread(held_out, held_out_labels)

    def __call__(self, images, asked=None):
        """The verdict on images of the classes ``asked`` for, int [N]; None: those that they are taken for."""
        images = _flat(images)
        ours, near = self._svm.predict_proba(images), self._nearest(images)
        asked = ours.argmax(1) if asked is None else np.asarray(asked)
        return Verdict(
            right=np.mean(ours.argmax(1) == asked),
            real_right=self.accuracy,
            confidence=ours.max(1).mean(),
            real_confidence=self._confidence,
            classes=tuple(np.bincount(ours.argmax(1), minlength=10).tolist()),
            spread=_spread(images, asked),
            real_spread=self._spread,
            distance=np.median(near),
            real_distance=np.median(self._near),
            p_nearer=mannwhitneyu(near, self._near, alternative="less").pvalue,
            copies=np.mean(near < np.quantile(self._near, 0.01)),
        )

    def _nearest(self, images):
        return pairwise_distances_argmin_min(images, self._train)[1]


def _spread(images, labels):
    """The median distance of two images of one class, the mean over the classes."""
    of_class = [pairwise_distances(images[labels == k]) for k in np.unique(labels)]
    return np.mean([np.median(d[np.triu_indices(len(d), 1)]) for d in of_class if len(d) > 1])


def _flat(images):
    return np.asarray(images, dtype=np.float64).reshape(len(images), -1) / 255
