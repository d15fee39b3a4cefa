"""Write scikit-learn's handwritten digits as 32x32 image files.

The 1,797 images of 8x8 pixels ship with scikit-learn, so nothing is
downloaded. A fifth of them, drawn with a fixed seed, is for validation.
"""

import argparse
import os
import os.path as osp

import cv2
import numpy as np
from sklearn.datasets import load_digits

SIZE = 32
VALIDATION = 360


def write_digits(folder: str, seed: int = 0) -> None:
    """Write ``<folder>/{train,val}/<digit>/<index>.png``.

    Args:
        folder (str): Where to; made if missing.
        seed (int): Decides which images are for validation. Defaults to 0.
    """
    digits = load_digits()
    order = np.random.RandomState(seed).permutation(len(digits.images))
    validation = set(order[:VALIDATION].tolist())
    for index, (image, label) in enumerate(zip(digits.images, digits.target)):
        split = 'val' if index in validation else 'train'
        target = osp.join(folder, split, str(label))
        os.makedirs(target, exist_ok=True)
        pixels = np.round(image * (255 / 16)).astype(np.uint8)
        pixels = cv2.resize(
            pixels, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR
        )
        cv2.imwrite(osp.join(target, f'{index:04d}.png'), pixels)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', help='folder to write, such as data/digits')
    write_digits(parser.parse_args().folder)


if __name__ == '__main__':
    main()
