"""Pickles written opcode by opcode, so that they hold what no honest pickler writes. Nothing here unpickles."""

from __future__ import annotations

import struct
from collections.abc import Iterator

MARKER = "ran"  # the file that a gadget makes in the folder where its process works

STOP, POP, REDUCE, BUILD = b".", b"0", b"R", b"b"


def text(value: str) -> bytes:
    """A str."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """An int of 32 bits."""
    return b"J" + struct.pack("<i", value)


def name(module: str, attribute: str) -> bytes:
    """A global."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def several(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    """What calling a global gives."""
    return name(module, attribute) + several(*arguments) + REDUCE


def mapping(**items: bytes) -> bytes:
    """A dict."""
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


_CODE = f"open({MARKER!r}, 'w').close()"
# opcodes that leave one value on the stack, having done what they should not
GADGETS: dict[str, bytes] = {
    "open": call("builtins", "open", text(MARKER), text("w")),
    "exec": call("builtins", "exec", text(_CODE)),
    "eval": call("builtins", "eval", text(_CODE)),
    "os.system": call("os", "system", text(f": > {MARKER}")),
    "subprocess": call("subprocess", "check_call", b"](" + text("touch") + text(MARKER) + b"e"),
    "import": call("importlib", "import_module", text("this")),
    "socket": call("socket", "create_connection", several(text("127.0.0.1"), integer(9))),
    "ctypes": call("ctypes", "CDLL", b"N"),
    "stack global": b"\x80\x04" + text("os") + text("getcwd") + b"\x93)R"
    + POP + text("builtins") + text("open") + b"\x93" + several(text(MARKER), text("w")) + REDUCE,
    "inst": b"(" + text(MARKER) + text("w") + b"ibuiltins\nopen\n",
    "obj": b"(" + name("builtins", "open") + text(MARKER) + text("w") + b"o",
    "dotted name": b"\x80\x04" + text("pathlib") + text("Path.touch") + b"\x93"
    + several(call("pathlib", "Path", text(MARKER))) + REDUCE,
    "torch storage": call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", 16) + b"\x80\x02cos\ngetpid\n)R."),
    "build": call("types", "SimpleNamespace") + mapping(__setstate__=name("os", "system")) + BUILD + text("true") + BUILD,
}  # fmt: skip
# what each does where it is unpickled: a part of an audit event
TRIPS = {
    "open": f"open ('{MARKER}', 'w'", "exec": "exec (", "eval": "compile (", "os.system": "os.system (", "subprocess": "subprocess.Popen (",
    "import": "/this.", "socket": "socket.connect (", "ctypes": "ctypes.dlopen (", "stack global": f"open ('{MARKER}', 'w'",
    "inst": f"open ('{MARKER}', 'w'", "obj": f"open ('{MARKER}', 'w'", "dotted name": f"os.utime ('{MARKER}'", "torch storage": "getpid",
    "build": "os.system (",
}  # fmt: skip


def pickled(body: bytes, protocol: int = 2) -> bytes:
    """The body as a whole pickle."""
    return b"\x80" + bytes([protocol]) + body + STOP


def smuggled(gadget: bytes, honest: bytes) -> bytes:
    """An honest pickle before whose value a gadget runs and is thrown away: an unpickler gives the honest value."""
    start = 2 if honest[:1] == b"\x80" else 0
    return honest[:2] * (start > 0) + gadget + POP + honest[start:]


def allocations() -> Iterator[tuple[str, bytes]]:
    """Opcodes that ask for more than the file has, or for a lot by little, each as a whole pickle."""
    sizes = {"2^31-1": 2**31 - 1, "2^32-1": 2**32 - 1, "2^40": 2**40, "2^62": 2**62, "2^63": 2**63}
    codes = {"BINUNICODE8": b"\x8d", "BINBYTES8": b"\x8e", "BYTEARRAY8": b"\x96", "FRAME": b"\x95"}
    for opcode, code in codes.items():
        for label, size in sizes.items():
            yield f"{opcode} {label}", b"\x80\x05" + code + struct.pack("<Q", size) + b"abc."
    for opcode, code in {"BINUNICODE": b"X", "BINBYTES": b"B", "BINSTRING": b"T", "LONG4": b"\x8b"}.items():
        for label in ("2^31-1", "2^32-1"):
            yield f"{opcode} {label}", b"\x80\x04" + code + struct.pack("<I", sizes[label]) + b"abc."
    for opcode, code in {"LONG_BINPUT": b"r", "LONG_BINGET": b"j", "EXT4": b"\x84"}.items():
        for label in ("2^31-1", "2^32-1"):
            yield f"{opcode} {label}", b"\x80\x02N" + code + struct.pack("<I", sizes[label]) + b"."
    yield "PUT of 4000 digits", b"Np" + b"9" * 4000 + b"\n."
    yield "LONG1 of 255 bytes", b"\x8a\xff" + b"\x7f" * 255 + b"."
    yield "LONG4 of 4 MB", b"\x8b" + struct.pack("<I", 2**22) + b"\x7f" * 2**22 + b"."
    for opcode, code in {
        "INT": b"I",
        "LONG": b"L",
        "FLOAT": b"F",
        "STRING": b"S",
        "UNICODE": b"V",
        "PERSID": b"P",
    }.items():
        yield f"{opcode} of 2 MB", code + b"9" * 2**21 + b"\n."
    yield "EXT1", b"\x82\x01."
    yield "EXT2", b"\x83\x01\x00."
    yield "NEXT_BUFFER", b"\x80\x05\x97."
    yield "READONLY_BUFFER", b"\x80\x05N\x98."
    yield "DUP a million times", b"N" + b"2" * 1_000_000 + b"."
    yield "MARK a million times", b"(" * 1_000_000 + b"."
    yield "MEMOIZE 400,000 times", b"\x80\x04N" + b"\x94" * 400_000 + b"."
    yield "tuples 400,000 deep", b")" + b"\x85" * 400_000 + b"."
    yield "lists 200,000 deep", b"]" * 200_000 + b"a" * 199_999 + b"."
    yield "laughing tuples", b"N" + b"q\x00h\x00\x86" * 60 + b"."
    yield "laughing lists", b"]" + b"q\x00]h\x00ah\x00a" * 60 + b"."
    yield "laughing key", b"}" + b"N" + b"q\x00h\x00\x86" * 60 + b"Ns."
    yield "list within itself", b"]q\x00h\x00a."
    yield "dict within itself", b"}q\x00Nh\x00s."
    yield "call within itself", call("builtins", "object") + b"q\x00h\x00" + BUILD + STOP
    yield "empty", b""
    yield "stop alone", STOP
    yield "pop alone", POP + STOP
    yield "no stop", b"\x80\x04N"
    yield "protocol 255", b"\x80\xffN."
