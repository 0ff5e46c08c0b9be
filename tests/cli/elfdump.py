"""Core dumps like QEMU's, for tests: of any class, byte order and damage."""

import struct

PT_LOAD, PT_NOTE, ET_CORE, PN_XNUM = 1, 4, 4, 0xffff


class Elf:
    def __init__(self, wide=True, little=True):
        order = "<" if little else ">"
        self.wide = wide
        self.ident = b"\x7fELF" + bytes([1 + wide, 2 - little, 1]) + bytes(9)
        self.header = struct.Struct(order + "16sHHI" + ("QQQ" if wide else "III")
                                    + "IHHHHHH")
        self.program = struct.Struct(order + ("IIQQQQQQ" if wide else "8I"))
        self.section = struct.Struct(order + ("IIQQQQIIQQ" if wide else "10I"))

    def load(self, kind, offset, address, size, memory):
        if self.wide:
            return self.program.pack(kind, 0, offset, 0, address, size, memory,
                                     0)
        return self.program.pack(kind, offset, 0, address, size, memory, 0, 0)

    def sized(self, count):
        """Of a file's headers, with so many segments."""
        return (self.header.size + self.section.size * (count >= PN_XNUM)
                + self.program.size * count)

    def head(self, segments, kind=ET_CORE, program_size=None):
        """All headers; segments are (type, offset, address, size, memory)."""
        many = len(segments) >= PN_XNUM
        sections = self.header.size if many else 0
        programs = self.header.size + (self.section.size if many else 0)
        data = self.header.pack(
            self.ident, kind, 62, 1, 0, programs, sections, 0,
            self.header.size, program_size or self.program.size,
            PN_XNUM if many else len(segments), self.section.size, many, 0)
        if many:
            data += self.section.pack(*[0] * 7, len(segments), 0, 0)
        return data + b"".join(self.load(*segment) for segment in segments)


def dump(ranges, wide=True, little=True, shuffle=None, note=b"", gap=0):
    """A dump of [(first address, bytes)], in this order in the file."""
    elf = Elf(wide, little)
    segments = [(PT_NOTE, elf.sized(len(ranges) + 1), 0, len(note), 0)]
    offset = elf.sized(len(ranges) + 1) + len(note)
    body = note
    for address, data in ranges:
        body += b"\xee" * gap + data
        offset += gap
        segments.append((PT_LOAD, offset, address, len(data), len(data)))
        offset += len(data)
    if shuffle:
        shuffle(segments)
    return elf.head(segments) + body
