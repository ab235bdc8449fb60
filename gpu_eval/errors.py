"""Every error of the package, so that callers can catch exactly what they mean.

    GpuEvalError
      InputError               what the user gave cannot be scored (exit code 2)
        OptionError            an option or argument has no meaning here
        LabelTableError        a label CSV that is not one
        EmptySplit             no ground truth found
        UnreadableSource       a folder, archive or URL that cannot be opened or listed
        UnreadableFile         a single file that cannot be read, or changed while scoring
        UnsafePath             an archive member that climbs out of its archive
        DuplicateFile          two files that claim one image
        MissingPrediction      a ground truth without a prediction
        ExtraPrediction        a prediction without a ground truth
        MalformedPredictions   a list of predicted instances that does not say what it must
        MissingMask            a mask that a list of predicted instances names is not there
        CorruptImage           not a PNG, truncated, bad CRC or Adler, short or overlong data
        WrongImageMode         a PNG whose pixels are not labels (RGB, LA, 1-bit, ...)
        SizeMismatch           a mask that is not of its ground truth's size
        ImageTooLarge          a header that asks for more pixels than MAX_PIXELS
        UnknownColour          a pixel of a colour-coded map whose colour is no label's
        LabelOutOfRange        most pixels are neither a class nor void
        FatalImage             an image that kills the process that scores it
        Doubtful               inputs that can be scored, but are certainly not what was meant
        SplitProblems          all of the above found in one pass, as a table
      ReportError              a run folder that cannot be used as asked (exit code 2)
        RunExists              the output folder holds another run
        IncompleteRun          the run was stopped before its end
        CorruptRun             a file of the run is missing, truncated or foreign
        WrongKind              a run of one task where one of another is needed
        IncomparableRuns       runs of different ground truth, protocol, resolution or images
      EngineError              an engine failed
        EngineUnavailable      the engine asked for cannot serve on this machine (exit code 2)
        DeviceFailed           a device failed, and this process cannot use it any more
      ClusterError             a Dask cluster failed
      Interrupted              Ctrl-C: what is done is kept (exit code 130)
    DoubtWarning               no error: what a meter was given looks like a mix-up

Each error names the file, what was found, what was expected and what to do, as far as they apply.
"""

from __future__ import annotations

from collections.abc import Sequence


class GpuEvalError(Exception):
    """The base of all errors raised on purpose.

    `file`, `found`, `expected` and `fix` are the columns of the table of problems; `str()` puts them
    into one line.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.found = found
        self.expected = expected
        self.fix = fix

    @property
    def kind(self) -> str:
        """The name of the error class, as `kind` in the errors of an images table and of run.json."""
        return type(self).__name__

    def __str__(self) -> str:
        line = f"{self.file}: {self.message}" if self.file else self.message
        facts = [
            f"{word} {value}" for word, value in (("found", self.found), ("expected", self.expected)) if value
        ]
        if facts:
            line += f" ({', '.join(facts)})"
        return f"{line}; {self.fix}" if self.fix else line

    def __reduce__(self) -> tuple[object, tuple[object, ...], dict[str, object]]:
        # Errors travel between processes; the default would drop the keyword arguments.
        return (type(self), (self.message,), self.__dict__)


class InputError(GpuEvalError):
    exit_code = 2


class OptionError(InputError):
    pass


class LabelTableError(InputError):
    pass


class EmptySplit(InputError):
    pass


class UnreadableSource(InputError):
    pass


class UnreadableFile(InputError):
    pass


class UnsafePath(InputError):
    pass


class DuplicateFile(InputError):
    pass


class MissingPrediction(InputError):
    pass


class ExtraPrediction(InputError):
    pass


class MalformedPredictions(InputError):
    pass


class MissingMask(InputError):
    pass


class CorruptImage(InputError):
    pass


class WrongImageMode(InputError):
    pass


class SizeMismatch(InputError):
    pass


class ImageTooLarge(InputError):
    pass


class UnknownColour(InputError):
    pass


class LabelOutOfRange(InputError):
    pass


class FatalImage(InputError):
    pass


class Doubtful(InputError):
    pass


class DoubtWarning(UserWarning):
    """What a meter was given looks like a mix-up of ids."""


class SplitProblems(InputError):
    """All problems of a split; `problems` holds one error per file."""

    def __init__(self, message: str, problems: Sequence[GpuEvalError] = (), **facts: str | None):
        super().__init__(message, **facts)
        self.problems = tuple(problems)


class ReportError(GpuEvalError):
    exit_code = 2


class RunExists(ReportError):
    pass


class IncompleteRun(ReportError):
    pass


class CorruptRun(ReportError):
    pass


class WrongKind(ReportError):
    pass


class IncomparableRuns(ReportError):
    pass


class EngineError(GpuEvalError):
    pass


class EngineUnavailable(EngineError):
    exit_code = 2


class DeviceFailed(EngineError):
    pass


class ClusterError(GpuEvalError):
    pass


class Interrupted(GpuEvalError):
    exit_code = 130
