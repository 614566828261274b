"""The error that is meant for a person, and others in one line."""


class ParameterError(ValueError):
    """A parameter that cannot be used. Its message is one line, meant for a person.

    It names the parameter, what was given, what is allowed, and what to do.
    """

    def _render_traceback_(self) -> list[str]:
        """Show that line alone in a notebook, without a traceback."""
        return [f"{type(self).__name__}: {self}"]


def first_line(error: Exception) -> str:
    """Return the name of an error and the first line of what it says."""
    return f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}"
