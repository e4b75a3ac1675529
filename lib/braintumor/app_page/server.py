"""Voila over app/app.ipynb, for this computer alone."""

import os

from tornado.web import HTTPError
from traitlets.config import Config
from voila.app import Voila

from braintumor.app_page.app import THUMBNAIL
from braintumor.core.files import ROOT
from braintumor.data.prepared import open_data
from braintumor.inference.report import NOTICE

DATA = "BRAINTUMOR_DATA"  # environment variable that tells the notebook which slices to browse
# the page, and what Voila adds to it, may ask this server and no other
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "connect-src 'self' ws://127.0.0.1:* ws://localhost:*; "
    "base-uri 'none'; object-src 'none'; form-action 'none'; frame-ancestors 'none'"
)


def serve(data="phantom", port=8866):
    """Serve the app at http://127.0.0.1:`port`, or at another port if that is taken, until Ctrl-C.

    `data` is "phantom" or a folder of slices, prepared first. Raises DatasetError if it cannot be prepared.
    """
    open_data(data, THUMBNAIL)
    os.environ[DATA] = data
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(ROOT / "app"), os.environ.get("JUPYTER_PATH")]))
    config = Config()
    config.Voila.ip, config.Voila.port = "127.0.0.1", port
    config.Voila.notebook_path = str(ROOT / "app" / "app.ipynb")
    config.Voila.log_level, config.Voila.config_file_paths = "ERROR", []
    config.Voila.tornado_settings = {
        # a page of another host cannot pass for this one by its name (DNS rebinding)
        "allow_remote_access": False,
        "local_hostnames": ["localhost"],
        # a page that is closed ends its kernel by a request that Voila sends without the cookie; other pages cannot,
        # since they do not know the kernel's identifier
        "disable_check_xsrf": True,
        "headers": {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"},
        "ws_ping_timeout": 30000,  # ms; Voila's default is refused, with a warning
    }
    page = config.VoilaConfiguration
    page.template = "braintumor"
    page.allow_template_override = page.allow_theme_override = "NO"
    page.file_allowlist = []
    page.extension_allowlist = [
        "@jupyter-widgets/jupyterlab-manager",
        "@voila-dashboards/widgets-manager8",
        "anywidget",
    ]
    page.resources = {"notice": NOTICE}
    page.prelaunch_hook = _only_visitors
    config.KernelManager.transport = "ipc"  # no port that other users of this computer could try
    config.ZMQChannelsWebsocketConnection.limit_rate = False  # pictures are more than it takes for a flood
    # a closed page ends its kernel; one whose browser crashed cannot
    config.MappingKernelManager.cull_idle_timeout, config.MappingKernelManager.cull_interval = 300, 60
    _Server.launch_instance([], config=config)


class _Server(Voila):
    def launch_browser(self):
        """Say where to look, now that the port is known; no browser is started."""
        print(f"The app is at {self.display_url}    (Ctrl-C ends it)", flush=True)


def _only_visitors(handler, **_):
    """Before a kernel starts: a page of another host may lead here, but not load the app behind the reader's back."""
    asked = handler.request.headers
    if asked.get("Sec-Fetch-Site", "none") in ("cross-site", "same-site") and asked.get("Sec-Fetch-Dest") != "document":
        raise HTTPError(403)
