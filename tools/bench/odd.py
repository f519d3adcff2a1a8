"""Two layers with entries that a system's own files lack, for comparing mounted images with their original.

The first has every kind of file, unusual names, owners, modes and times, sparse and empty files, hard links and extended attributes. The second
changes it with whiteouts, opaque and replaced directories, and files and links over lower ones. Nothing in them comes from this machine. Only a
character device 0:0 is missing: overlayfs treats it as a whiteout, so images store it in another form, which the kernel's mount shows.
"""

import io
import tarfile

TIME = 1_600_000_000


class Member:
    """A member of an archive. Only files have `content`."""

    def __init__(self, path, kind=tarfile.REGTYPE, mode=0o644, content=b"", target="", mtime=TIME, uid=0, gid=0, device=(0, 0), pax=None):
        self.path, self.kind, self.mode, self.content, self.target = path, kind, mode, content, target
        self.mtime, self.uid, self.gid, self.device, self.pax = mtime, uid, gid, device, dict(pax or {})

    def write(self, archive):
        info = tarfile.TarInfo(self.path)
        info.type, info.mode, info.uid, info.gid = self.kind, self.mode, self.uid, self.gid
        info.linkname, info.size = self.target, len(self.content)
        info.devmajor, info.devminor = self.device
        info.pax_headers = dict(self.pax)
        if isinstance(self.mtime, str):
            info.pax_headers["mtime"] = self.mtime
        else:
            info.mtime = self.mtime
        archive.addfile(info, io.BytesIO(self.content))


def directory(path, mode=0o755, **more):
    return Member(path, tarfile.DIRTYPE, mode, **more)


def symlink(path, target, **more):
    return Member(path, tarfile.SYMTYPE, 0o777, target=target, **more)


def hard_link(path, target):
    return Member(path, tarfile.LNKTYPE, target=target)


def name(data):
    """Any bytes in the form that tarfile accepts."""
    return data.decode("utf-8", "surrogateescape")


def pattern(length):
    return bytes((index * 31 + (index >> 8)) & 0xFF for index in range(length))


# A capability (cap_net_raw, revision 2) as the kernel stores it, and another one.
CAPABILITY = "\x01\0\0\2\0\x20" + 14 * "\0"
OTHER_CAPABILITY = "\x01\0\0\2\0\x10" + 14 * "\0"


def first():
    members = [
        directory("usr", mtime="1700000000.123456789"),
        directory("run"),
        directory("run/lock"),
        Member("run/lock/held", content=b"1"),
        directory("odd"),
        # Kinds.
        Member("odd/character", tarfile.CHRTYPE, 0o666, device=(1, 3)),
        Member("odd/block", tarfile.BLKTYPE, 0o660, device=(300, 70000), gid=6),
        Member("odd/pipe", tarfile.FIFOTYPE, 0o600),
        # Modes and owners.
        Member("odd/setuid", mode=0o6755, content=pattern(5000), uid=12345, gid=54321),
        Member("odd/locked", mode=0, content=pattern(300)),
        Member("odd/far-away", mode=0o640, content=b"x", uid=2_000_000_000, gid=2_000_000_001),
        Member("odd/farther", pax={"uid": "4000000000", "gid": "3000000000"}, content=b"y"),
        directory("odd/sticky", 0o1777),
        directory("odd/setgid", 0o2775, gid=50),
        directory("odd/private", 0o700, uid=1000, gid=1000),
        # Times.
        Member("odd/fraction", mtime="1600000000.5", content=b"t"),
        Member("odd/nanoseconds", mtime="1600000000.000000001", content=b"t"),
        Member("odd/before-1970", mtime="-315619200", content=b"t"),
        Member("odd/before-1970-fraction", mtime="-1000.25", content=b"t"),
        Member("odd/epoch", mtime=0, content=b"t"),
        Member("odd/after-2038", mtime="4102444800.999999999", content=b"t"),
        Member("odd/after-2106", mtime="4300000000", content=b"t"),
        directory("odd/fraction-directory", mtime="1600000000.25"),
        symlink("odd/fraction-link", "fraction", mtime="1600000000.75", uid=7, gid=8),
        # Attributes: capabilities are kept, all others are removed by the rules for container images.
        Member("odd/capable", mode=0o755, content=pattern(9000), pax={"SCHILY.xattr.security.capability": CAPABILITY}),
        Member("odd/noted", content=b"n", pax={"SCHILY.xattr.user.note": "left out"}),
        # Hard links, in one directory and over several.
        Member("odd/one", content=pattern(70_000), uid=3),
        hard_link("odd/two", "odd/one"),
        hard_link("usr/odd-three", "odd/one"),
        hard_link("odd/gone-four", "odd/one"),
        Member("odd/small-one", content=b"small"),
        hard_link("odd/sticky/small-two", "odd/small-one"),
        hard_link("odd/pipe-again", "odd/pipe"),
        # Symlinks.
        symlink("odd/dangling", "/nowhere"),
        symlink("odd/itself", "itself"),
        symlink("odd/long-link", "z" * 4000),
        symlink("odd/byte-link", name(b"\xff\xfe")),
        # Names.
        Member("odd/" + "n" * 255, content=b"long"),
        Member(name(b"odd/\xff\xfe odd \x01"), content=b"bytes"),
        Member("odd/new\nline", content=b"n"),
        Member("odd/-dash", content=b"d"),
        Member("odd/back\\slash \"quote' $x *", content=b"q"),
        Member("odd/\u00e9", content=b"composed"),
        Member("odd/e\u0301", content=b"decomposed"),
        Member("odd/.hidden", content=b"h"),
        Member("odd/00", content=b"like a directory of objects"),
        # Changed by the second layer.
        Member("odd/gone", content=b"g"),
        directory("odd/gone-directory"),
        directory("odd/gone-directory/below"),
        Member("odd/gone-directory/below/file", content=b"g"),
        directory("odd/opaque"),
        directory("odd/opaque/below"),
        Member("odd/opaque/below/file", content=b"o"),
        Member("odd/opaque/old", content=b"o"),
        Member("odd/file-then-directory", content=b"f"),
        directory("odd/directory-then-file"),
        Member("odd/directory-then-file/below", content=b"f"),
        Member("odd/replaced", mode=0o755, content=pattern(4000), uid=1),
        symlink("odd/link-then-file", "replaced"),
        directory("odd/kept"),
        Member("odd/kept/file", content=b"k"),
    ]
    # Sizes around the limits at which images store files differently.
    for size in (0, 1, 63, 64, 65, 4095, 4096, 4097, 65_535, 1_048_577):
        members.append(Member(f"odd/size-{size}", content=pattern(size), pax={"mtime": f"{TIME}.{size}"}))
    members.append(Member("odd/zeros", content=bytes(300_000)))
    # A directory of several blocks, and a deep one.
    members.append(directory("odd/many"))
    members += [Member(f"odd/many/a name of some length {index}", content=b"%d" % index) for index in range(400)]
    deep = "odd"
    for level in range(30):
        deep += f"/level {level} " + "d" * 40
        members.append(directory(deep, mtime=TIME + level))
    members.append(Member(deep + "/bottom", content=b"deep"))
    return members


def second():
    return [
        directory("odd", mode=0o751, mtime=TIME + 5),
        Member("odd/.wh.gone"),
        Member("odd/.wh.gone-directory"),
        Member("odd/.wh.gone-four"),
        directory("odd/opaque", mode=0o711),
        Member("odd/opaque/new", content=b"new"),
        Member("odd/opaque/.wh..wh..opq"),
        directory("odd/file-then-directory", mode=0o700),
        Member("odd/file-then-directory/below", content=b"b"),
        Member("odd/directory-then-file", content=b"now a file"),
        Member("odd/replaced", mode=0o600, content=pattern(77), uid=2),
        Member("odd/link-then-file", content=b"no link"),
        directory("odd/kept", mode=0o750, uid=9, gid=10, mtime=-1_000_000_000),
        hard_link("odd/later", "odd/setuid"),
        # One of a group of hard links becomes a separate file.
        Member("odd/two", content=b"alone"),
        # Twice in a layer: the last one counts.
        Member("odd/twice", content=b"first", mode=0o600),
        Member("odd/twice", content=b"second", mode=0o640),
    ]


# Alterations of one entry each: the attribute that a comparison must report, the path, and how to alter it.
ALTERATIONS = {
    "kind": ("odd/pipe", lambda member: setattr(member, "kind", tarfile.REGTYPE)),
    "mode": ("odd/setuid", lambda member: setattr(member, "mode", 0o755)),
    "uid": ("odd/far-away", lambda member: setattr(member, "uid", 5)),
    "gid": ("odd/farther", lambda member: member.pax.update(gid="3000000001")),
    "size": ("odd/size-65", lambda member: setattr(member, "content", pattern(66))),
    "mtime": ("odd/nanoseconds", lambda member: setattr(member, "mtime", "1600000000.000000002")),
    "rdev": ("odd/character", lambda member: setattr(member, "device", (1, 5))),
    "links": ("odd/sticky/small-two", lambda member: setattr(member, "target", "odd/one")),
    "target": ("odd/dangling", lambda member: setattr(member, "target", "/nowherE")),
    "xattrs": ("odd/capable", lambda member: member.pax.update({"SCHILY.xattr.security.capability": OTHER_CAPABILITY})),
    "content": ("odd/size-1048577", lambda member: setattr(member, "content", b"\1" + member.content[1:])),
    "entry": ("odd/many/a name of some length 399", lambda member: setattr(member, "path", "odd/many/a name of some length 400")),
    "directory's mode": ("odd/private", lambda member: setattr(member, "mode", 0o701)),
    "directory's mtime": ("usr", lambda member: setattr(member, "mtime", "1700000000.123456788")),
}


def layers(altered=None, filling=0):
    """Both layers, each as a function that writes the archive; `altered` names one of the alterations.

    The lower one has `filling` plain files more, in directories of 100.
    """
    lower, upper = first(), second()
    for index in range(filling):
        if index % 100 == 0:
            lower.append(directory(f"odd/filling-{index // 100}", mtime=TIME + index))
        lower.append(Member(f"odd/filling-{index // 100}/{index}", content=b"%d" % index * (index % 50), mtime=TIME + index))
    if altered:
        path, change = ALTERATIONS[altered]
        change(next(member for member in lower if member.path == path))

    def writer(members, form):
        def write(stream):
            with tarfile.open(fileobj=stream, mode="w|", format=form, encoding="utf-8", errors="surrogateescape") as archive:
                for member in members:
                    member.write(archive)
            return len(members)

        return write

    return [writer(lower, tarfile.PAX_FORMAT), writer(upper, tarfile.GNU_FORMAT)]
