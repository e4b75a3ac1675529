"""HTML from the Jinja2 templates in the folder `templates` of this package."""

from jinja2 import Environment, PackageLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=PackageLoader("braintumor"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template, **context):
    """Render a template, such as "figure.html.j2", and escape its values."""
    return _ENVIRONMENT.get_template(template).render(**context)
