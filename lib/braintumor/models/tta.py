"""Predictions for whole slices: head crop and test-time augmentation of a network."""

import numpy as np

from braintumor.models import head_crop

ZOOMS = (0.8, 1.0, 1.2)  # side of the crop, relative to the head's box


def predict_views(network, images, crop_size, crop=True, zooms=ZOOMS):
    """Predict crops of the head of several sizes, and their mirror images.

    Parameters
    ----------
    network : callable, maps crops (n, crop_size, crop_size, 1) to a dict of arrays
    images : float array (n, side, side) in [0, 1]
    crop : bool, whether to crop the head; otherwise the whole slice is resized
    zooms : tuple, sides of the crops relative to the head's, 1 among them

    Returns
    -------
    dict : "classify" (n, n_views, ...), for each crop and its mirror image, and "mask"
        (n, side, side), the mean of "segment" over them, each if the network has it;
        "box" (n, 3) and "crop" (n, crop_size, crop_size) of the head; other outputs
        for that crop and its mirror image (n, 2, ...)
    """
    box = head_crop.head_box(images) if crop else head_crop.full_box(images)
    outputs, classes, masks = {}, [], []
    for zoom in zooms:
        zoomed = head_crop.scale_box(box, zoom)
        crops = head_crop.crop_and_resize(images, zoomed, crop_size)
        views = [network(x[..., None]) for x in (crops, crops[:, :, ::-1])]
        if zoom == 1:
            outputs = {name: np.stack([v[name] for v in views], 1) for name in views[0]}
            outputs |= {"box": box, "crop": crops}
        if "classify" in views[0]:
            classes += [view["classify"] for view in views]
        if "segment" in views[0]:
            first, mirrored = (view["segment"][..., 0] for view in views)
            mean = (first + mirrored[:, :, ::-1]) / 2
            masks.append(head_crop.paste_back(mean, zoomed, images.shape[1]))
    if classes:
        outputs["classify"] = np.stack(classes, axis=1)
    if masks:
        outputs["mask"] = np.mean(masks, axis=0)
    return outputs
