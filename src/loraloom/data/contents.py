"""What a data file holds, as text: unpacked where it is packed, and decoded by what its bytes are."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from loraloom.errors import DataError

PACKED = (".gz", ".zst", ".bz2", ".xz")
"""Endings that may follow that of a format: train.jsonl.gz. How a file is packed is
told by its first bytes."""

_CHUNK = 2**22
_FREE_BYTES = 2**27
"""Any packed file may grow to this size."""
_MOST_TIMES = 250
"""Beyond it, to this many times its own size: rows of text grow a tenth of that, and a file that grows
further was made to fill a memory."""
_MAGIC: Mapping[bytes, str] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; that of UTF-32 begins with that of UTF-16."""
_NOT_DATA = (
    (b"PK\x03\x04", "a ZIP file, or a spreadsheet", "unpack it, or save the sheet as CSV"),
    (b"version https://git-lfs", "only a pointer of Git LFS: the data were not fetched", "git lfs pull"),
    (
        b"<!doctype html",
        "a web page",
        "download the file itself: on a hub, its link says `resolve`, not `blob`",
    ),
    (b"<html", "a web page", "download the file itself: on a hub, its link says `resolve`, not `blob`"),
    (b"PAR1", "a Parquet file", "rename it to end in .parquet"),
    (b"ARROW1", "an Arrow file", "rename it to end in .arrow"),
)


def inner_name(path: Path) -> Path:
    """The file's name without the ending of its packing: train.jsonl for train.jsonl.gz."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def text_of(path: Path) -> str:
    """The text of a file: UTF-8, or UTF-16 and UTF-32 that begin with their mark; packed or not.

    Raises:
        DataError: it is no such text, or unpacks to more than a memory should hold. The
            line of the fault is named.
        OSError: it cannot be opened.
    """
    raw = _unpacked(path)
    start = raw[:32].lstrip().lower()
    for magic, is_this, way in _NOT_DATA:
        if start.startswith(magic.lower()) and not (
            magic.startswith(b"<") and inner_name(path).suffix.lower() == ".txt"
        ):
            raise DataError(f"this is {is_this}", where=str(path), need="rows as text", next=way)
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), None)
    if encoding is None and (wide := _wide(raw)):
        raise DataError(
            "the text is not UTF-8",
            where=f"{path}:1",
            got=f"a NUL beside every letter, as in {wide}, and no mark (ff fe or fe ff) at the start",
            next=f"convert it: {_iconv(wide, path)}",
        )
    try:
        text = raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        raise _not_text(raw, error, path) from error
    if (nul := text.find("\0")) >= 0:
        raise DataError(
            "the text holds a NUL character",
            where=f"{path}:{text.count(chr(10), 0, nul) + 1}",
            got="what an interrupted copy leaves, or a file that is not text",
            need="text",
            next=(
                f"get the file again, or take them out: tr -d '\\000' < {path.name} >"
                f" clean{inner_name(path).suffix}"
            ),
        )
    return text


def _unpacked(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(8)
        packing = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
        file.seek(0)
        if packing is None:
            return file.read()
        most = max(_FREE_BYTES, _MOST_TIMES * path.stat().st_size)
        try:
            with _opened(file, packing) as unpacked:
                return _at_most(most, unpacked, path)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
            if isinstance(error, DataError):
                raise
            # The file was opened and read: what fails here is its content.
            raise DataError(
                f"{path} cannot be unpacked ({packing})",
                got=str(error) or type(error).__name__,
                next="download or pack it again",
            ) from error


def _opened(file: IO[bytes], packing: str) -> Any:
    if packing == "zstd":
        import pyarrow

        return cast(Any, pyarrow).CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
    return {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[packing](file)


def _at_most(most: int, unpacked: Any, path: Path) -> bytes:
    held = io.BytesIO()
    while chunk := unpacked.read(_CHUNK):
        held.write(chunk)
        if held.tell() > most:
            raise DataError(
                f"{path} unpacks to more than {most:,} bytes",
                got=f"a file of {path.stat().st_size:,} bytes",
                next="if this is right, unpack it and name the unpacked file",
            )
    return held.getvalue()


def _wide(raw: bytes) -> str | None:
    """Which UTF-16 a text without a mark seems to be: a NUL stands beside most letters."""
    zeros = [raw[start:8192:2].count(0) for start in (0, 1)]
    if 8 * max(zeros) < len(raw[:8192]) or min(zeros) * 4 >= max(zeros):
        return None
    return "UTF-16LE" if zeros[1] > zeros[0] else "UTF-16BE"


def _not_text(raw: bytes, error: UnicodeDecodeError, path: Path) -> DataError:
    line = raw.count(b"\n", 0, error.start) + 1
    got = f"byte 0x{raw[error.start]:02x}"
    if error.encoding != "utf-8":
        return DataError(
            f"the file begins as {error.encoding.upper()}, but not all of it is",
            where=str(path),
            got=f"{error.reason} at byte {error.start:,}",
            next="get the file again, or save it as UTF-8",
        )
    if error.reason == "unexpected end of data":
        return DataError(
            "the file ends within a character",
            where=f"{path}:{line}",
            got=got,
            need="the whole file",
            next="get the file again",
        )
    way = _advice(raw, path)
    return DataError("the text is not UTF-8", where=f"{path}:{line}", got=got, next=way)


def _advice(raw: bytes, path: Path) -> str:
    """How to make UTF-8 of these bytes: converting a file that mostly is UTF-8 would
    spoil all that is right in it."""
    kept = raw.decode("utf-8", errors="ignore")
    right = sum(len(sign.encode()) for sign in kept if not sign.isascii())
    wrong = len(raw) - len(kept.encode())
    if right > 4 * wrong:
        return "nearly all of the file is UTF-8: repair or remove this line alone"
    high = sum(byte >= 0x80 for byte in raw)
    letters = high + sum(chr(byte).isalpha() for byte in raw if byte < 0x80)
    if high * 3 > letters:
        # Most letters are beyond ASCII: not a Western text, and which script it is its
        # bytes alone do not say.
        return (
            "convert it from what it was written in (GB18030, Shift_JIS, CP1251, ...), for example:"
            f" {_iconv('GB18030', path)}"
        )
    western = any(0x80 <= byte < 0xA0 for byte in raw)
    return f"convert it: {_iconv('WINDOWS-1252' if western else 'ISO-8859-1', path)}"


def _iconv(encoding: str, path: Path) -> str:
    reading = f"iconv -f {encoding} -t UTF-8"
    suffix = inner_name(path).suffix
    if path.suffix.lower() in PACKED:
        tool = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}[path.suffix.lower()]
        return f"{tool} -dc {path.name} | {reading} > utf8{suffix}"
    return f"{reading} {path.name} > utf8{suffix}"
