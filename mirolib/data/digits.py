"""The handwritten digits that scikit-learn brings along: 1,797 images, no download."""

from pathlib import Path

import numpy as np

from mirolib.data.dataset import Dataset, DatasetSpec, Preset

DIGITS = DatasetSpec(
    name="digits",
    sample_shape=(1, 8, 8),
    sample_dtype="uint8",
    scale=16.0,
    mean=(0.305,),
    std=(0.376,),
    presets={
        "small": Preset("cnn", tasks=5, epochs=9, batch_size=16, lr=0.05, stream_size=250, episodic_size=50,
                        swap_ratio=1.0),
    },
    source="scikit-learn's bundled copy of the UCI ML hand-written digits (test set), 1,797 images of 8x8",
    licence="CC BY 4.0 (UCI); scikit-learn's copy is distributed with it under BSD-3-Clause",
    citation="Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49",
)  # fmt: skip


def load(root: Path) -> Dataset:
    """The bundled digits, split 1,400 to 397 once and for all, stratified by class; `root` plays no part."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        images, bunch.target, train_size=1400, stratify=bunch.target, random_state=0
    )
    return Dataset.from_arrays(train, train_labels, test, test_labels, spec=DIGITS)
