"""An independent judge of generated digits: a calibrated SVM, and distances to the nearest training image.

It shares nothing with the package but the pixels: scikit-learn is trained on the real training split and asked about
real held-out digits and generated ones side by side.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.svm import SVC


@dataclass(frozen=True)
class Verdict:
    """What the judge found of a set of images, and of the real held-out ones beside it."""

    confidence: float
    real_confidence: float
    classes: tuple[int, ...]
    distance: float
    real_distance: float
    p_nearer: float

    def __str__(self):
        return (
            f"mean top probability {self.confidence:.3f} (real {self.real_confidence:.3f}), classes {self.classes}, "
            f"median distance to nearest training image {self.distance:.3f} (real {self.real_distance:.3f}), "
            f"one-sided p that it is smaller {self.p_nearer:.3f}"
        )


class Judge:
    """Trained once on real images, uint8 [N, 1, 8, 8], and their labels."""

    def __init__(self, train, labels, held_out, held_out_labels):
        self._train, self._held_out = _flat(train), _flat(held_out)
        self._svm = CalibratedClassifierCV(SVC(gamma=0.25, C=10), method="temperature").fit(self._train, labels)
        self.accuracy = self._svm.score(self._held_out, held_out_labels)

    def __call__(self, images):
        images = _flat(images)
        real, ours = self._svm.predict_proba(self._held_out), self._svm.predict_proba(images)
        near, real_near = self._nearest(images), self._nearest(self._held_out)
        return Verdict(
            confidence=ours.max(1).mean(),
            real_confidence=real.max(1).mean(),
            classes=tuple(np.bincount(ours.argmax(1), minlength=10).tolist()),
            distance=np.median(near),
            real_distance=np.median(real_near),
            p_nearer=mannwhitneyu(near, real_near, alternative="less").pvalue,
        )

    def _nearest(self, images):
        return pairwise_distances_argmin_min(images, self._train)[1]


def _flat(images):
    return np.asarray(images, dtype=np.float64).reshape(len(images), -1) / 255
