"""What a power cut may leave of recorded calls.

A call is durable when a later sync that covers it has returned: `syncfs` covers everything, `fsync` of a file its content and attributes, `fsync` of a
directory its entries, `fdatasync` content only. More is not assumed: not that the sync of a file makes its name durable, nor that of a directory
the content of its files or the directory's own name. Atomic are a rename, a symbolic link with its target, and a new file with its first mode.

`states` yields, for each number of completed calls, what may be on the disk. Of what is not durable:
  lost       nothing is left (btrfs without a commit of its transaction; the end of the journal of ext4 and XFS is not written)
  kept       everything is. As this is done for each number of calls, it is also each prefix of an ordered journal
  empty      names and attributes are there, content is not: files have the content of their last sync, new files have no bytes (delayed allocation)
  zeros      the same, with the full size and zeros
  cut        content ends at a block in the middle
  torn       blocks from the middle on are zeros, with the full size
  no xattr   extended attributes are lost, all else is there
  logged     a transaction was committed before some of the calls, and the log has only what was synced after it (btrfs), with content kept or empty
  random     each change of an entry, of an attribute and of a file's content is independently lost or there. No journaled file system leaves
             such states: this is stricter, and at least as strict as POSIX
"""
import collections, os, random, stat

from recorder import Effect

BLOCK = 4096


class Change:
    """An effect, the number of its call, and the number of the call that made it durable."""

    __slots__ = ("effect", "call", "durable", "directories")

    def __init__(self, effect, call, directories):
        self.effect, self.call, self.durable, self.directories = effect, call, float("inf"), directories


class File:
    """An inode in one state."""

    __slots__ = ("kind", "mode", "owner", "data", "target", "attributes", "entries", "times", "number")

    def __init__(self, other):
        for name in ("kind", "mode", "owner", "data", "target", "number"):
            setattr(self, name, getattr(other, name))
        self.attributes, self.entries = dict(other.attributes), dict(other.entries)
        self.times = getattr(other, "times", None)


class State:
    """One possible content of the disk: `entries` is a list of (path, file)."""

    def __init__(self, entries, calls, kind):
        self.entries, self.calls, self.kind = entries, calls, kind
        # Whether the command has returned 0, and where the power was cut, for messages.
        self.is_done, self.place = False, ""

    @property
    def identity(self):
        seen = {}
        return hash(tuple(
            (path, file.kind, file.mode, file.owner, file.data, file.target, tuple(sorted(file.attributes.items())), file.times,
             seen.setdefault(file.number, len(seen)))
            for path, file in self.entries))


class PowerCut:
    def __init__(self, tree, calls):
        self.tree, self.calls, self.changes = tree, calls, []
        pending = []
        for number, call in enumerate(calls):
            # The two entries of a rename are one change of the journal: syncing one of the directories writes it.
            directories = {effect.node for effect in call.effects if effect.kind == Effect.ENTRY}
            new = [Change(effect, number, directories) for effect in call.effects]
            self.changes += new
            pending += new
            if call.sync is not None:
                for change in pending:
                    if self.covers(call, change):
                        change.durable = number
                pending = [change for change in pending if change.durable != number]
        self.zeros = {}

    @staticmethod
    def covers(call, change):
        if call.sync == "all":
            return True
        if change.effect.kind == Effect.ENTRY:
            return call.sync in change.directories
        return change.effect.node == call.sync and (not call.onlyData or change.effect.kind == Effect.DATA)

    def files(self):
        """The files before the first call."""
        return {number: File(node) for number, node in self.tree.nodes.items()}

    def listing(self, files):
        found, pending = [], [("", self.tree.root)]
        while pending:
            path, number = pending.pop()
            file = files[number]
            found.append((path, file))
            pending += [(path + "/" + name, child) for name, child in sorted(file.entries.items(), reverse=True)]
        return found

    def final(self):
        """Everything that was recorded, for the comparison with the real files."""
        files = self.files()
        for change in self.changes:
            self.apply(files, change.effect)
        return State(self.listing(files), len(self.calls), "kept")

    @staticmethod
    def apply(files, effect):
        file = files[effect.node]
        if effect.kind == Effect.ENTRY:
            if effect.value is None:
                file.entries.pop(effect.key, None)
            else:
                file.entries[effect.key] = effect.value
        elif effect.kind == Effect.DATA:
            file.data = effect.value
        elif effect.kind == Effect.ATTRIBUTE:
            if effect.value is None:
                file.attributes.pop(effect.key, None)
            else:
                file.attributes[effect.key] = effect.value
        elif effect.kind == Effect.MODE:
            file.mode = effect.value
        elif effect.kind == Effect.OWNER:
            file.owner = effect.value
        else:
            file.times = effect.value

    def states(self, seed, count, first=0):
        """Yields the states after each number of calls, `first` and more: the ordered ones, then `count` random ones."""
        base, recent, next_change = self.files(), [], 0
        for calls in range(len(self.calls) + 1):
            # What is durable and in order becomes the base; the rest is decided for each state.
            while next_change < len(self.changes) and self.changes[next_change].call < calls:
                recent.append(self.changes[next_change])
                next_change += 1
            while recent and recent[0].durable < calls:
                effect = recent.pop(0).effect
                # States that were yielded before have the old one.
                base[effect.node] = File(base[effect.node])
                self.apply(base, effect)
            if calls < first:
                continue
            yield self.state(base, recent, calls, "kept", lambda change: True, self.whole)
            if all(change.durable < calls for change in recent):
                continue
            yield self.state(base, recent, calls, "lost", lambda change: False, self.empty)
            for kind, content in [("empty", self.empty), ("zeros", self.zeroed), ("cut", self.cut), ("torn", self.torn)]:
                yield self.state(base, recent, calls, kind, lambda change: True, content)
            yield self.state(base, recent, calls, "no xattr", lambda change: change.effect.kind != Effect.ATTRIBUTE, self.whole)
            # Without a sync between the commit and now these are states of an earlier number of calls.
            last = max([change.call for change in recent if change.durable < calls], default=-1)
            for commit in sorted({change.call for change in recent if change.durable >= calls and change.call <= last}):
                for content in (self.whole, self.empty):
                    yield self.state(base, recent, calls, "logged", lambda change, commit=commit: change.call < commit, content)
            for number in range(count):
                # Each state can be made again on its own.
                choice = random.Random(f"{seed}.{calls}.{number}")
                share = choice.choice([0.1, 0.5, 0.9])
                keeps = {call: choice.random() < share for call in sorted({change.call for change in recent})}

                def content(durable, current, choice=choice):
                    return choice.choice([self.whole, self.empty, self.zeroed, self.cut, self.torn])(durable, current)

                yield self.state(base, recent, calls, f"random {number}", lambda change, keeps=keeps: keeps[change.call], content)

    def state(self, base, recent, calls, kind, keeps, content):
        files = dict(base)
        own = set()
        written = collections.OrderedDict()
        for change in recent:
            effect = change.effect
            isDurable = change.durable < calls
            if effect.kind == Effect.DATA and not isDurable:
                # The content is decided by file, and does not depend on which of the writes are kept; but no write is before its time.
                if kind.startswith("random") or keeps(change):
                    written[effect.node] = effect.value
                elif kind == "lost":
                    written.setdefault(effect.node, None)
                continue
            if not isDurable and not keeps(change):
                continue
            if effect.node not in own:
                own.add(effect.node)
                files[effect.node] = File(files[effect.node])
            self.apply(files, effect)
            if effect.kind == Effect.DATA:
                written.pop(effect.node, None)
        for node, current in written.items():
            if current is None:
                continue
            if node not in own:
                own.add(node)
                files[node] = File(files[node])
            files[node].data = content(files[node].data, current)
        return State(self.listing(files), calls, kind)

    # Of the content of a file after its last sync, and its current one.

    @staticmethod
    def whole(durable, current):
        return current

    @staticmethod
    def empty(durable, current):
        return durable

    def zeroed(self, durable, current):
        return durable[:len(current)] + self.zero(len(current) - len(durable))

    def cut(self, durable, current):
        return current[:max(len(durable), len(current) // 2 // BLOCK * BLOCK)]

    def torn(self, durable, current):
        whole = max(len(durable), len(current) // 2 // BLOCK * BLOCK)
        return current[:whole] + self.zero(len(current) - whole)

    def zero(self, count):
        count = max(count, 0)
        return self.zeros.setdefault(count, bytes(count))


def write(state, folder, original, rename=None, tops=None):
    """Makes a state's files in a new folder. `tops` are the entries of the folder that were changed: the others are links to the originals. `rename`
    gives a path another name."""
    umask = os.umask(0o22)
    os.umask(umask)
    made = {}
    for path, file in state.entries:
        top = path[1:].split("/")[0]
        if tops is not None and top and top not in tops:
            if path == "/" + top:
                os.symlink(f"{original}/{top}", f"{folder}/{top}")
            continue
        place = folder + (rename(path) if rename else path)
        if file.kind == stat.S_IFLNK:
            os.symlink(file.target, place)
            if file.times:
                os.utime(place, ns=file.times, follow_symlinks=False)
        elif file.number in made:
            os.link(made[file.number], place)
        elif file.kind == stat.S_IFDIR:
            os.makedirs(place, file.mode, exist_ok=True)
        else:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
            try:
                rest = memoryview(file.data)
                while rest:
                    rest = rest[os.write(descriptor, rest):]
                for name, value in file.attributes.items():
                    os.setxattr(descriptor, name, value)
                if file.times:
                    os.utime(descriptor, ns=file.times)
            finally:
                os.close(descriptor)
            made[file.number] = place
        if file.kind != stat.S_IFLNK and (file.mode & umask or file.mode & 0o7000):
            os.chmod(place, file.mode)
        if file.owner != (os.geteuid(), os.getegid()):
            os.chown(place, *file.owner, follow_symlinks=False)


def differences(state, other):
    """The paths at which the two states differ."""
    def table(state):
        seen = {}
        return {
            path: (file.kind, file.mode if file.kind != stat.S_IFLNK else 0, file.owner, file.data, file.target,
                   tuple(sorted(file.attributes.items())), seen.setdefault(file.number, path))
            for path, file in state.entries}

    first, second = table(state), table(other)
    return sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))
