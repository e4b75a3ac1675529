"""The programs in tools/ can be imported by the tests of the site."""

import sys

from braintumor.core.files import ROOT

sys.path.insert(0, str(ROOT / "tools"))
