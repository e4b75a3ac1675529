"""HTML from the Jinja2 templates in the folder `templates` of this package."""

from jinja2 import Environment, PackageLoader, StrictUndefined

_SETTINGS = dict(autoescape=True, undefined=StrictUndefined)
_SETTINGS |= dict(trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT = Environment(loader=PackageLoader("braintumor"), **_SETTINGS)


def render(template, **context):
    """Render a template, such as "figure.html.j2", and escape its values."""
    return _ENVIRONMENT.get_template(template).render(**context)
