"""What can go wrong in the search core, told apart by what the reader has to do about it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on whatever device.

    Args:
        error: Anything raised.
    """
    # By name and by text, so that nobody has to load torch to ask.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (
            type(error).__name__ == "OutOfMemoryError"
            # The CPU's allocator, CUDA itself with Triton, and the libraries upon it.
            or any(
                each in str(error)
                for each in (
                    "can't allocate memory",
                    "out of memory",
                    "ALLOC_FAILED",
                    "ALLOCATION_FAILED",
                )
            )
        )
    )


class SearchCoreError(Exception):
    """Root of all errors that the search core raises on purpose."""


class InvalidGenotypeError(SearchCoreError, ValueError):
    """A genotype's text or JSON does not describe an architecture; the message says where."""


class IncomparableError(SearchCoreError, ValueError):
    """Two architectures are of different kinds; the message says of which."""


class UnknownNameError(SearchCoreError, ValueError):
    """A name is not in the registry; the message lists the names that are."""


class DataNotFoundError(SearchCoreError):
    """A data set is not where it was looked for; the message names the folder."""


class DivergedError(SearchCoreError):
    """A loss or a gradient stopped being finite; the message names the epoch and the loss."""


class CheckpointError(SearchCoreError):
    """A checkpoint is damaged or belongs to another spec or seed."""
