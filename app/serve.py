"""Serve app.ipynb by Voila on this computer only: python app/serve.py DATA PORT."""

import os
import signal
import sys
from pathlib import Path

from app import THUMBNAIL_SIZE
from tornado.web import HTTPError
from traitlets.config import Config
from voila.app import Voila

from braintumor.core.errors import DatasetError
from braintumor.data.prepared import open_data
from braintumor.inference.report import NOTICE

HERE = Path(__file__).resolve().parent
# the page, and what Voila adds to it, may connect to this server only
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "connect-src 'self' ws://127.0.0.1:* ws://localhost:*; "
    "base-uri 'none'; object-src 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server(Voila):
    """Voila that prints its address, known only now, and starts no browser."""

    def launch_browser(self):
        print(f"The app is at {self.display_url}    (Ctrl-C ends it)", flush=True)


def make_config(port):
    """Make Voila's configuration for 127.0.0.1 and a port."""
    config = Config()
    config.Voila.ip, config.Voila.port = "127.0.0.1", port
    config.Voila.notebook_path = str(HERE / "app.ipynb")
    config.Voila.log_level, config.Voila.config_file_paths = "ERROR", []
    config.Voila.tornado_settings = {
        # other hosts cannot pass for this one by its name (DNS rebinding)
        "allow_remote_access": False,
        "local_hostnames": ["localhost"],
        # A closing page ends its kernel by a request that Voila sends without the
        # cookie. Other pages do not know the kernel's identifier.
        "disable_check_xsrf": True,
        "headers": {
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
        },
        "ws_ping_timeout": 30000,  # ms; Voila's default gives a warning
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
    page.prelaunch_hook = refuse_embedding
    config.KernelManager.transport = "ipc"  # no port for other users of the computer
    config.ZMQChannelsWebsocketConnection.limit_rate = False  # images exceed it
    # a closed page ends its kernel, but not if the browser crashed
    config.MappingKernelManager.cull_idle_timeout = 300
    config.MappingKernelManager.cull_interval = 60
    return config


def refuse_embedding(handler, **_):
    """Start no kernel for requests of other sites, except for following a link."""
    headers = handler.request.headers
    is_other_site = headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if is_other_site and headers.get("Sec-Fetch-Dest") != "document":
        raise HTTPError(403)


def serve(data, port):
    """Serve the app at `port`, or another if that is in use, until interrupted.

    `data` is "phantom" or a folder of slices, which is prepared first.
    """
    open_data(data, THUMBNAIL_SIZE)
    os.environ["BRAINTUMOR_DATA"] = data
    paths = [str(HERE), os.environ.get("JUPYTER_PATH")]
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, paths))
    Server.launch_instance([], config=make_config(port))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(sys.argv[1], int(sys.argv[2]))
    except DatasetError as error:
        sys.exit(f"braintumor: {error}")
