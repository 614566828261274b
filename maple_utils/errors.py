"""The error that is meant for a person."""


class ParameterError(ValueError):
    """A parameter that cannot be used. Its message is one line, meant for a person.

    It names the parameter, what was given, what is allowed, and what to do.
    """

    def _render_traceback_(self) -> list[str]:
        """Show that line alone in a notebook, without a traceback."""
        return [f"{type(self).__name__}: {self}"]
