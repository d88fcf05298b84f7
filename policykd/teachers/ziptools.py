"""Members of a zip under bounds: how many, how large, each name once. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter

from policykd.spine.errors import InputError, brief

MAX_MEMBERS = 20_000
MAX_DIRECTORY = 2 * 2**20  # bytes; a member of a state dict takes about 65, and at least 46
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Guarded(io.BytesIO):
    """The zip as a file that gives at most `MAX_DIRECTORY` bytes at a time while its directory is read.

    zipfile reads the directory at once and makes an object of every entry before anyone can count them. Whatever the
    records at the end of the file say, and however this Python's zipfile understands them, it gets no more than this.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bounded, self._size = True, len(data)  # getbuffer() would copy the data

    def read(self, size: int | None = -1, /) -> bytes:
        """As BytesIO; BadZipFile for a directory that is too large."""
        left = max(self._size - self.tell(), 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if self.bounded and wanted > MAX_DIRECTORY:
            raise zipfile.BadZipFile(
                f"a directory of members of {wanted} bytes, more than the limit of {MAX_DIRECTORY}"
            )
        return super().read(wanted)


class Archive:
    """A zip in memory. `name` is how messages call it; `remedy` ends them with what to do."""

    def __init__(self, data: bytes, name: str, remedy: str) -> None:
        self.name, self.remedy = name, remedy
        file = _Guarded(data)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise InputError(f"{name}: not a readable zip ({brief(error)}); {remedy}") from error
        file.bounded = False
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            raise InputError(f"{name}: {len(infos)} members, more than the limit of {MAX_MEMBERS}; {remedy}")
        if infos and min(info.header_offset for info in infos) != 0:
            # the end of a truncated file can hold a whole smaller zip, such as SB3's policy.optimizer.pth
            raise InputError(f"{name}: not a readable zip (it is truncated, or something precedes it); {remedy}")
        self._infos = {info.filename: info for info in infos}
        repeated = [member for member, count in Counter(info.filename for info in infos).items() if count > 1]
        if repeated:
            raise InputError(f"{name}: member {repeated[0][:80]!r} occurs more than once; {remedy}")

    @property
    def members(self) -> list[str]:
        """The names of the members, in the order of the zip."""
        return list(self._infos)

    def size(self, member: str) -> int:
        """The size in bytes that the zip declares for a member; 0 for one that is missing."""
        return self._infos[member].file_size if member in self._infos else 0

    def read(self, member: str, limit: int) -> bytes:
        """A member of at most `limit` bytes; InputError if it is missing, larger, damaged or encrypted."""
        info = self._infos.get(member)
        if info is None:
            raise InputError(f"{self.name}: has no member {member[:80]!r}; {self.remedy}")
        if info.file_size > limit:
            raise InputError(
                f"{self.name}: {member[:80]!r} has {info.file_size} bytes, more than {limit}; {self.remedy}"
            )
        if info.flag_bits & 1 or info.compress_type not in _METHODS:
            raise InputError(f"{self.name}: {member[:80]!r} is encrypted or packed in an unusual way; {self.remedy}")
        try:
            with self._zip.open(info) as stream:
                data = stream.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
            raise InputError(f"{self.name}: {member[:80]!r} is damaged ({brief(error)}); {self.remedy}") from error
        if len(data) != info.file_size:
            raise InputError(f"{self.name}: {member[:80]!r} has {len(data)} of {info.file_size} bytes; {self.remedy}")
        return data
