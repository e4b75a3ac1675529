"""Codes, names and colors of tumor classes, planes and kinds of data."""

LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary tumor"}
CLASS_COLORS = {
    "meningioma": "#0072B2",
    "glioma": "#E69F00",
    "pituitary tumor": "#CC79A7",
}
MASK_COLOR = "#56B4E9"
PLANES = ("axial", "coronal", "sagittal", "unknown")
PHANTOM_VERSION = 5  # raise it whenever the same seed gives other bytes
DATA_KINDS = {
    "phantom": "synthetic phantom, no real images",
    "figshare": "figshare dataset 1512427 (Jun Cheng, CC BY 4.0), original int16 files",
    "figshare-jpeg": "figshare dataset 1512427 (Jun Cheng, CC BY 4.0), 8-bit JPEG copy",
    "folder": "folder of slices provided by the user",
}
