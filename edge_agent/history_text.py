"""The bytes of a text file as blocks of whole lines in UTF-8, whatever it is packed and encoded in."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from edge_agent.contract.errors import HistoryError

BLOCK_BYTES = 4 << 20


def text_blocks(path: Path, notices: list[str]) -> Iterator[bytes]:
    """Yield the file in blocks of about 4 MiB that end with a line; a notice says if it is not UTF-8.

    Raises:
        HistoryError: the file cannot be opened, is damaged, or is no text.
    """
    try:
        yield from _whole_lines(path, notices)
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HistoryError(f"{path}: the file cannot be read: {reason}") from error


def _whole_lines(path: Path, notices: list[str]) -> Iterator[bytes]:
    rest = b""
    foreign = False
    with _opened(path) as stream:
        while block := stream.read(BLOCK_BYTES):
            cut = block.rfind(b"\n") + 1
            lines, rest = (rest + block[:cut], block[cut:]) if cut else (b"", rest + block)
            foreign = foreign or _tell_foreign(lines, path, notices)
            if lines:
                yield _to_utf8(lines) if foreign else lines
    foreign = foreign or _tell_foreign(rest, path, notices)
    if rest:
        yield _to_utf8(rest) if foreign else rest


def _opened(path: Path) -> IO[bytes]:
    """Return the file as a stream of UTF-8 bytes, or of bytes of an unknown 8-bit encoding."""
    packed = path.suffix.lower() == ".gz"
    stream = cast(IO[bytes], gzip.GzipFile(path, "rb") if packed else path.open("rb"))
    mark = stream.read(4)
    stream.seek(3 if mark.startswith(b"\xef\xbb\xbf") else 0)
    if mark.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _Recoded(io.TextIOWrapper(stream, "utf-16", newline=""))
    return stream


class _Recoded(io.BytesIO):
    """A text stream read as UTF-8 bytes."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        super().__init__()
        self._text = text

    def read(self, size: int | None = -1, /) -> bytes:
        """Return about so many bytes, b"" at the end."""
        return self._text.read(size).encode()

    def close(self) -> None:
        """Close the file under it."""
        self._text.close()
        super().close()


def _tell_foreign(lines: bytes, path: Path, notices: list[str]) -> bool:
    if b"\0" in lines:
        raise HistoryError(f"{path}: the file is not text; a history is CSV or Parquet")
    try:
        lines.decode()
    except UnicodeDecodeError:
        notices.append(f"{path.name}: the file is not UTF-8, it is read as Windows-1252")
        return True
    return False


def _to_utf8(lines: bytes) -> bytes:
    return lines.decode("cp1252", errors="replace").encode()
