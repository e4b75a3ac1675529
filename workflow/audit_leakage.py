"""Snakemake script: which training slice is the nearest neighbor of each test slice.

For each protocol and fold, a 1-nearest-neighbor classifier on small slices; the tables
hold, for each test slice, its neighbor and whether its patient was in training.
"""

from itertools import product
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors

from braintumor.core.files import atomic_write
from braintumor.data.prepared import open_data
from braintumor.data.splits import FOLDS, make_split

snakemake = globals()["snakemake"]  # provided by Snakemake
config = snakemake.config
prepared = open_data(
    snakemake.params["data"], config["audit"]["image_size"], percentiles=(0, 100)
)
index = prepared.index
pixels = prepared.images.reshape(len(index), -1).astype(np.float32)
for protocol, fold in product(("official", "family", "slice"), FOLDS):
    split = make_split(index, protocol, fold, config["seed"])
    neighbors = NearestNeighbors(n_neighbors=1).fit(pixels[split.train])
    nearest_rows = neighbors.kneighbors(pixels[split.test], return_distance=False)[:, 0]
    nearest = index.iloc[split.train[nearest_rows]]
    columns = ["file", "pid", "family", "label"]
    table = index.iloc[split.test][columns].assign(protocol=protocol, fold=fold)
    for column in ("pid", "family"):
        seen = set(index[column].iloc[split.train])
        table[f"{column}_seen"] = table[column].isin(seen).astype(int)
    for column in columns:
        table[f"nearest_{column}"] = nearest[column].to_numpy()
    path = Path(snakemake.output[0], f"{protocol}-{fold}.csv")
    with atomic_write(path) as temporary:
        table.rename(columns={"label": "y_true"}).to_csv(temporary, index=False)
