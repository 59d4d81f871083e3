"""The errors of the models: each says what was found, what was expected, and what to do."""


class ModelError(ValueError):
    """Something about a network's settings, input or checkpoint that the user can mend; base of the family."""


class UnknownNameError(ModelError):
    """A network, surrogate, neuron or backend of that name does not exist."""


class InputShapeError(ModelError):
    """Frames do not have the shape the network was built for, or the network cannot be built for that size."""


class CheckpointError(ModelError):
    """A published state dictionary does not fit the network."""


class BackendError(ModelError):
    """The requested backend cannot run here, or not on this tensor."""


class ExportError(ModelError):
    """A network cannot be said in another format, or a file of that format cannot be run."""
