"""The exceptions of energycomp. Every message says what was got, what was expected and what to do."""


class EnergycompError(Exception):
    """Base of all errors that energycomp raises on purpose; the CLI prints its message without a traceback."""


class InputError(EnergycompError, ValueError):
    """A value, shape, file or picture from the caller is not what the function takes."""


class CompositionError(EnergycompError, TypeError):
    """Components that cannot be composed: other space, schedule or shape, or no trained unconditional row."""


class NotFoundError(EnergycompError, LookupError):
    """A name that no plugin registers, or a path or hub id that holds no model."""


class PluginError(EnergycompError):
    """A plugin that breaks the contract of its hook, or two plugins that claim one name."""


class CheckpointError(EnergycompError):
    """Files on disk that are incomplete, altered, or do not fit the network they are loaded into."""


class HubError(EnergycompError, ConnectionError):
    """The hub refused a token or an upload, or the connection to it broke off."""


class NonFiniteError(EnergycompError, ArithmeticError):
    """A network predicted NaN or infinity; the message names the component and the step."""


def first_line(error: Exception) -> str:
    r"""What an error of a library says first, for a message of one line.

    >>> first_line(ValueError("no such file\nand how to get help")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0]
