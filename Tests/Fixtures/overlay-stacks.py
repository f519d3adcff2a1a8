#!/usr/bin/env python3
"""Compares the tree that cfsoci merges from random layer stacks with what overlayfs shows for the same layers, each extracted into its own
directory; and with umoci's tree if umoci is installed. Needs root.

usage: overlay-stacks.py CFSOCI COUNT [SEED]     prints the seed first; exit status 1 and the layers of the first stack that differs
"""
import ctypes, hashlib, io, json, os, random, shutil, stat, subprocess, sys, tarfile, tempfile

libc = ctypes.CDLL(None, use_errno=True)
NAMES = ["a", "b", "c", "d", "e"]
TOP = "usr"  # cfsoci replaces the root's metadata by those of /usr


def mount_overlay(lower, target):
    options = ("lowerdir=" + ":".join(reversed(lower))).encode()
    if libc.mount(b"overlay", target.encode(), b"overlay", ctypes.c_ulong(1), options) != 0:
        raise OSError(ctypes.get_errno(), "mount overlay")


def unmount(target):
    if libc.umount2(target.encode(), 2) != 0:
        raise OSError(ctypes.get_errno(), "umount")


class View:
    """The merged tree of layer directories: overlayfs, or the directory itself if there is only one."""

    def __init__(self, layers, place):
        self.place, self.root = place, None
        if len(layers) == 1:
            self.root = layers[0]
        elif layers:
            os.makedirs(place, exist_ok=True)
            mount_overlay(layers, place)
            self.root = place

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.root == self.place:
            unmount(self.place)

    def tree(self):
        found = {}
        for folder, folders, files in os.walk(self.root):
            for name in folders + files:
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                except FileNotFoundError:
                    # A whiteout that hides nothing: overlayfs lists it, but the name does not exist.
                    continue
                found[os.path.relpath(path, self.root)] = describe(path, status)
        return found


def describe(path, status):
    mode = status.st_mode & 0o7777
    if stat.S_ISDIR(status.st_mode):
        return ("dir", mode)
    if stat.S_ISLNK(status.st_mode):
        return ("link", os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return ("file", mode, file.read())
    return ("other", status.st_mode)


def ancestors(path):
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


# -- random layers -------------------------------------------------------------

def random_path(rng):
    return "/".join([TOP] + [rng.choice(NAMES) for _ in range(rng.choice([1, 1, 2, 2, 3]))])


def make_layer(rng, lower, number):
    """Entries in the archive's order: (kind, path, detail, mode). `lower` is the tree of the layers below."""
    own = {}  # path -> kind

    def fits(path, kind):
        if any(own.get(up) not in (None, "dir") for up in ancestors(path)):
            return False
        if kind != "dir" and any(other.startswith(path + "/") for other in own):
            return False
        return own.get(path) in (None, kind) or kind != "dir" and own[path] != "dir"

    entries = []

    def add(kind, path, detail=None):
        if not fits(path, kind):
            return False
        own[path] = kind
        mode = rng.choice([0o755, 0o700, 0o751]) if kind == "dir" else rng.choice([0o644, 0o600, 0o755])
        entries.append((kind, path, detail, mode))
        return True

    links_to_directories = [p for p, what in lower.items() if what[0] == "link" and lower.get(target_of(p, what[1]), ("",))[0] == "dir"]
    for _ in range(rng.randrange(2, 9)):
        kind = rng.choice(["dir", "file", "file", "link", "dir"])
        # Existing paths are the interesting ones.
        path = rng.choice(sorted(lower)) if lower and rng.random() < 0.5 else random_path(rng)
        if links_to_directories and rng.random() < 0.3:
            path, kind = rng.choice(sorted(links_to_directories)), "dir"
        if path == TOP:
            continue
        if kind == "file":
            add("file", path, b"%d:%d" % (number, rng.randrange(1000)) * rng.choice([1, 1, 40]))
        elif kind == "link":
            up = "/".join([".."] * path.count("/"))
            target = rng.choice([random_path(rng)] + [p for p, what in sorted(lower.items()) if what[0] == "dir"] * 2)
            add("link", path, rng.choice(["/" + target, (up + "/" if up else "") + target]))
        else:
            add("dir", path)

    whiteouts = []
    for _ in range(rng.randrange(0, 5) if number else 0):
        # Paths of lower layers, or below the target of a link, if the layer replaces the link by a directory.
        candidates = sorted(lower)
        for link in links_to_directories:
            if own.get(link) == "dir":
                target = target_of(link, lower[link][1])
                candidates += [link + path[len(target):] for path in sorted(lower) if path.startswith(target + "/")] * 2
        candidates = [p for p in candidates if p != TOP and not any(own.get(up) not in (None, "dir") for up in ancestors(p))]
        if not candidates:
            break
        path = rng.choice(candidates)
        if rng.random() < 0.4:
            folder = os.path.dirname(path) if rng.random() < 0.5 else path
            if own.get(folder) in (None, "dir") and (own.get(folder) == "dir" or lower.get(folder, ("",))[0] == "dir") and folder != TOP:
                whiteouts.append(("opaque", folder, None, 0o644))
        else:
            whiteouts.append(("whiteout", path, None, 0o644))

    # Parent directories: the layer must have those that are not directories below, and sometimes has the others.
    for _, path, _, _ in entries + whiteouts:
        for up in ancestors(path):
            if up in own:
                continue
            below = lower.get(up, ("",))[0]
            if below not in ("", "dir") or rng.random() < 0.5:
                add("dir", up)

    # A whiteout needs an existing directory, or one of the layer.
    whiteouts = [w for w in whiteouts if all(own.get(up) == "dir" or lower.get(up, ("",))[0] == "dir" for up in ancestors(w[1]))]
    rng.shuffle(entries)
    if number == 0 or not any(path == TOP for _, path, _, _ in entries):
        entries.insert(0, ("dir", TOP, None, 0o755))
        own[TOP] = "dir"

    # Hard links: to an earlier file of the layer, or to a lower file that the layer does not touch, hidden or not.
    for _ in range(rng.randrange(0, 3)):
        name = random_path(rng)
        files = [e[1] for e in entries if e[0] == "file" and sum(o[1] == e[1] for o in entries) == 1]
        files += [p for p, what in sorted(lower.items()) if what[0] == "file" and p not in own and not any(own.get(q) not in (None, "dir") for q in ancestors(p))]
        files = [p for p in files if p != name and not p.startswith(name + "/")]
        if any(e[0] == "hard" and (e[2] + "/").startswith(name + "/") for e in entries):
            continue
        if not files or name in own or any(lower.get(up, ("dir",))[0] != "dir" and up not in own for up in ancestors(name)):
            continue
        if any(lower.get(up, ("dir",))[0] != "dir" for up in ancestors(name) if own.get(up) is None) or not fits(name, "hard"):
            continue
        target = rng.choice(files)
        own[name] = "hard"
        first = max([0] + [n + 1 for n, e in enumerate(entries) if e[1] == target])
        entries.insert(rng.randrange(first, len(entries) + 1), ("hard", name, target, 0o644))
    targets = {whiteout[:2] for whiteout in whiteouts}
    for whiteout in whiteouts:
        kind, path = whiteout[:2]
        if any(own.get(q) not in (None, "dir") for q in ancestors(path) + ([path] if kind == "opaque" else [])):
            continue
        # Hidden paths need no whiteouts; unpackers would create directories for them.
        folder = path if kind == "opaque" else os.path.dirname(path)
        above = ancestors(folder)
        is_hidden = any(("whiteout", q) in targets for q in above + [folder]) or any(("opaque", q) in targets for q in above)
        if is_hidden and own.get(folder) != "dir":
            continue
        entries.insert(rng.randrange(0, len(entries) + 1), whiteout)
    return entries


def target_of(link, target):
    path = os.path.normpath(os.path.join("/", os.path.dirname(link), target))
    return path.lstrip("/")


# -- unpacking for overlayfs ----------------------------------------------------

def unpack(entries, root, below):
    """Extracts one layer into its own directory. `below` is a directory that shows the lower layers, or None."""
    described = {path for kind, path, _, _ in entries if kind == "dir"}
    hidden = {path for kind, path, _, _ in entries if kind == "whiteout"}
    emptied = {path for kind, path, _, _ in entries if kind == "opaque"}

    def implicit_mode(path):
        if path in hidden or any(up in hidden or up in emptied for up in ancestors(path)) or below is None:
            return 0o755
        if any(os.path.islink(os.path.join(below, up)) for up in ancestors(path)):
            return 0o755  # another path
        try:
            status = os.lstat(os.path.join(below, path))
        except OSError:
            return 0o755
        return status.st_mode & 0o7777 if stat.S_ISDIR(status.st_mode) else 0o755

    def parents(path):
        for up in ancestors(path):
            place = os.path.join(root, up)
            if not os.path.isdir(place):
                os.mkdir(place)
                if up not in described:
                    os.chmod(place, implicit_mode(up))

    def clear(place):
        if os.path.isdir(place) and not os.path.islink(place):
            shutil.rmtree(place)
        elif os.path.lexists(place):
            os.unlink(place)

    for kind, path, detail, mode in entries:
        place = os.path.join(root, path)
        if kind in ("whiteout", "opaque"):
            continue
        parents(path)
        if kind == "dir":
            if not os.path.isdir(place) or os.path.islink(place):
                clear(place)
                os.mkdir(place)
            os.chmod(place, mode)
            continue
        clear(place)
        if kind == "file":
            with open(place, "wb") as file:
                file.write(detail)
            os.chmod(place, mode)
        elif kind == "link":
            os.symlink(detail, place)
        elif kind == "hard":
            target = os.path.join(root, detail)
            if os.path.lexists(target):
                os.link(target, place, follow_symlinks=False)
            else:  # the file of a lower layer, to which this directory cannot link
                shutil.copy2(os.path.join(below, detail), place, follow_symlinks=False)
    for kind, path, _, _ in entries:
        place = os.path.join(root, path)
        if kind == "whiteout":
            parents(path)
            if os.path.isdir(place) and not os.path.islink(place):
                os.setxattr(place, "trusted.overlay.opaque", b"y")
            elif not os.path.lexists(place):
                os.mknod(place, stat.S_IFCHR | 0o644, 0)
        elif kind == "opaque":
            parents(path + "/x")
            if os.path.isdir(place):
                os.setxattr(place, "trusted.overlay.opaque", b"y")


# -- the image -------------------------------------------------------------------

def archive(entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as out:
        for kind, path, detail, mode in entries:
            folder, name = os.path.split(path)
            item = tarfile.TarInfo({"whiteout": f"{folder}/.wh.{name}", "opaque": f"{path}/.wh..wh..opq"}.get(kind, path))
            item.mode, item.mtime = mode, 1700000000
            item.type = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}.get(kind, tarfile.REGTYPE)
            if kind in ("link", "hard"):
                item.linkname = detail
            if kind == "file":
                item.size = len(detail)
            out.addfile(item, io.BytesIO(detail) if kind == "file" else None)
    return buffer.getvalue()


def layout(folder, layers):
    os.makedirs(folder + "/blobs/sha256", exist_ok=True)

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{folder}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"digest": "sha256:" + digest, "size": len(data)}

    kind = "application/vnd.oci.image."
    blobs = [blob(data) for data in layers]
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [b["digest"] for b in blobs]}})
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
        "config": dict(blob(config.encode()), mediaType=kind + "config.v1+json"),
        "layers": [dict(b, mediaType=kind + "layer.v1.tar") for b in blobs]})
    named = {"org.opencontainers.image.ref.name": "t"}
    index = {"schemaVersion": 2, "manifests": [dict(blob(manifest.encode()), mediaType=kind + "manifest.v1+json", annotations=named)]}
    for name, data in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(f"{folder}/{name}", "w") as file:
            json.dump(data, file)


def unescape(field):
    out, n = bytearray(), 0
    data = field.encode()
    while n < len(data):
        if data[n:n + 1] != b"\\":
            out.append(data[n])
            n += 1
        elif data[n + 1:n + 2] == b"x":
            out.append(int(data[n + 2:n + 4], 16))
            n += 4
        else:
            out.append({b"n": 10, b"r": 13, b"t": 9, b"\\": 92}[data[n + 1:n + 2]])
            n += 2
    return bytes(out)


def pulled(cfsoci, repository, folder):
    def run(*arguments):
        done = subprocess.run([cfsoci, "-q", *arguments], capture_output=True, env=dict(os.environ, CFSOCI_REPO=repository))
        if done.returncode:
            raise RuntimeError(f"cfsoci {' '.join(arguments)}: exit {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode()

    run("pull", f"oci:{folder}:t", "t")
    found, objects = {}, {}
    for line in run("dump", "t").splitlines():
        fields = line.split(" ")
        path = unescape(fields[0]).decode().lstrip("/")
        if not path:
            continue
        if fields[2].startswith("@"):
            found[path] = ("hard", unescape(fields[8]).decode().lstrip("/"))
            continue
        mode = int(fields[2], 8)
        if stat.S_ISDIR(mode):
            found[path] = ("dir", mode & 0o7777)
        elif stat.S_ISLNK(mode):
            found[path] = ("link", unescape(fields[8]).decode())
        elif fields[8] != "-":
            with open(f"{repository}/objects/{fields[8]}", "rb") as file:
                found[path] = ("file", mode & 0o7777, file.read())
        else:
            found[path] = ("file", mode & 0o7777, b"" if fields[9] == "-" else unescape(fields[9]))
    return {path: found[what[1]] if what[0] == "hard" else what for path, what in found.items()}


def report(seed, number, layers, ours, theirs, name):
    print(f"stack {number} of seed {seed}: cfsoci's tree is not that of {name}")
    for n, layer in enumerate(layers):
        print(f"  layer {n}:")
        for kind, path, detail, mode in layer:
            print(f"    {kind} {path} {oct(mode)} {'' if detail is None else detail}")
    for path in sorted(set(ours) | set(theirs)):
        if ours.get(path) != theirs.get(path):
            print(f"  {path}: cfsoci {ours.get(path)}, {name} {theirs.get(path)}")


def main():
    cfsoci, count = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.SystemRandom().randrange(1 << 32)
    umoci = shutil.which("umoci")
    print(f"seed {seed}, {count} stacks, compared with overlayfs" + (" and umoci" if umoci else ""), flush=True)
    work = tempfile.mkdtemp(prefix="overlay-stacks-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    subprocess.run([cfsoci, "-q", "init", "--insecure", work + "/repo"], check=True, stdout=subprocess.DEVNULL)
    whiteouts = through = differences = 0
    try:
        for number in range(count):
            rng = random.Random(f"{seed}/{number}")
            layers, folders = [], []
            stack = f"{work}/{number}"
            for n in range(rng.choice([2, 2, 3, 4])):
                with View(folders, f"{stack}/view") as view:
                    lower = view.tree() if folders else {}
                    entries = make_layer(rng, lower, n)
                    folder = f"{stack}/layer{n}"
                    os.makedirs(folder)
                    unpack(entries, folder, view.root)
                whiteouts += sum(kind in ("whiteout", "opaque") for kind, *_ in entries)
                through += sum(kind == "dir" and lower.get(path, ("",))[0] == "link" for kind, path, *_ in entries)
                layers.append(entries)
                folders.append(folder)
            with View(folders, f"{stack}/view") as view:
                expected = view.tree()
            layout(f"{stack}/oci", [archive(entries) for entries in layers])
            try:
                ours = pulled(cfsoci, work + "/repo", f"{stack}/oci")
            except RuntimeError as error:
                print(f"stack {number} of seed {seed}: {error}")
                ours = {}
            if ours != expected:
                report(seed, number, layers, ours, expected, "overlayfs")
                differences += 1
            elif umoci:
                done = subprocess.run([umoci, "unpack", "--image", f"{stack}/oci:t", f"{stack}/bundle"], capture_output=True)
                # umoci resolves entries in order, so it refuses a link after the whiteout of its target, and a child before the directory that
                # replaces a link. In these cases only overlayfs is compared.
                if done.returncode == 0:
                    theirs = View([f"{stack}/bundle/rootfs"], "").tree()
                    if set(theirs) != set(ours):
                        print(f"stack {number} of seed {seed}: umoci has other paths: {sorted(set(theirs) ^ set(ours))}")
            if differences >= 3:
                break
            shutil.rmtree(stack)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{count} stacks, {whiteouts} whiteouts, {through} directories in the place of links, {differences} differences")
    return 1 if differences else 0


sys.exit(main())
