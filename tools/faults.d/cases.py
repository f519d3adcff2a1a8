"""The commands that change files, each with the state that it begins in. For tools/faults and tools/crash."""
import functools, hashlib, json, os, shutil, subprocess, tempfile
from images import write_index, write_layout

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "..", "..", "Tests", "Fixtures", "old-repositories")
CFSOCI = os.environ.get("CFSOCI") or os.path.join(HERE, "..", "..", ".build", "debug", "cfsoci")
SIZES = [30, 100, 3000, 70000]


class Broken(Exception):
    """A command failed that should not."""


def cfsoci(*arguments, check=True, standard_input=None):
    with open(standard_input or os.devnull, "rb") as file:
        done = subprocess.run(
            [CFSOCI, *arguments], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if check and done.returncode:
        raise Broken(f"cfsoci {' '.join(arguments)}: {done.stdout.strip()}")
    return done


class Case:
    """A command and its initial state: `prepare` creates the state in a folder, `arguments` are those of the command.

    - outputs: what it writes besides the repository.
    - place: the repository's path in the folder.
    - standard_input: a file for it.
    - is_whole: whether the repository is there and undamaged before.
    - collects: whether its result is what a collection of garbage leaves. If not, the result is its links.
    - repeated: exit statuses of the command when it is done already.
    - reports: whether it exits with 2 and a report when it could not check everything.
    """

    def __init__(
        self, name, prepare, arguments, outputs=(), place="repo", standard_input=None, is_whole=True, collects=True, repeated=(0,),
        reports=False,
    ):
        self.name, self.prepare, self.arguments, self.outputs = name, prepare, arguments, outputs
        self.standard_input, self.is_whole, self.collects = standard_input or (lambda folder: None), is_whole, collects
        self.place, self.repeated, self.reports = place, repeated, reports

    def command(self, folder):
        return [*self.arguments(folder), "--repo", self.repository(folder)]

    def repository(self, folder):
        return f"{folder}/{self.place}"

    def run(self, folder, check=True):
        return cfsoci(*self.command(folder), check=check, standard_input=self.standard_input(folder))


def write_layouts(folder):
    """Two images, one that shares a layer with the first, the first with an artifact, and an index."""
    write_layout(f"{folder}/layout0", 0, 2, 4, SIZES)
    write_layout(f"{folder}/layout1", 1, 2, 4, SIZES)
    write_layout(f"{folder}/shared", 2, 2, 4, SIZES, first=0)
    write_layout(f"{folder}/referred", 0, 2, 4, SIZES, artifact=True)
    write_index(f"{folder}/platforms", SIZES)


def repository(folder, *tags, options=()):
    cfsoci("init", folder + "/repo", "--insecure", *options)
    for number, tag in enumerate(tags):
        cfsoci("pull", f"oci:{folder}/layout{number % 2}:t", tag, "--repo", folder + "/repo")


def with_index(folder):
    repository(folder)
    cfsoci("pull", f"oci:{folder}/platforms:t", "t", "--all-platforms", "--repo", folder + "/repo")


def with_garbage(folder):
    repository(folder, "a", "b")
    cfsoci("untag", "b", "--repo", folder + "/repo")


def with_disks(folder):
    repository(folder, "a")
    for kind in ["vmdk", "flat"]:
        cfsoci("disk", "a", "--kind", kind, "--repo", folder + "/repo")


def with_snapshot(folder):
    """A snapshot of a disk with some content, which is exported, too."""
    repository(folder, "a")
    cfsoci("disk", "upper", folder + "/upper", "--size", "16M")
    with open(folder + "/upper", "r+b") as disk:
        for number in range(6):
            disk.seek((2 + number * 2) << 20)
            disk.write(bytes([number + 1]) * 70_000)
    cfsoci("snapshot", "create", "s", "--upper", folder + "/upper", "--image", "a", "--repo", folder + "/repo")
    cfsoci("snapshot", "export", "s", folder + "/exported", "--repo", folder + "/repo")
    os.remove(folder + "/upper")


def without_snapshot(folder):
    with_snapshot(folder)
    cfsoci("snapshot", "rm", "s", "--repo", folder + "/repo")
    cfsoci("gc", "--repo", folder + "/repo")


def outdated(folder):
    """Images of format 2 only, in a repository whose default is 1, with a tag of each and one that shares its image."""
    repository(folder, "a", "b", options=["--erofs-version", "2"])
    cfsoci("tag", "a", "c", "--repo", folder + "/repo")
    cfsoci("init", folder + "/new", "--insecure", "--erofs-version", "1")
    shutil.move(folder + "/new/meta.json", folder + "/repo/meta.json")
    shutil.rmtree(folder + "/new")


@functools.cache
def signing():
    """Options with a key, the same for all runs: what it signs is part of the state. The key is removed at the end of the process."""
    signing.folder = tempfile.TemporaryDirectory(prefix="cfsoci-key-")
    key, certificate = signing.folder.name + "/key", signing.folder.name + "/certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=k", "-keyout", key, "-out", certificate],
        check=True, capture_output=True)
    return ["--sign-key", key, "--sign-cert", certificate]


def two_repositories(folder):
    repository(folder, "a")
    os.rename(folder + "/repo", folder + "/other")
    repository(folder)


def damaged(folder):
    """Every fifth object truncated, removed, or with a flipped byte; a link removed."""
    repository(folder, "a")
    objects = sorted(
        os.path.join(parent, name) for parent, _, names in os.walk(folder + "/repo/objects") for name in names)
    for number, path in enumerate(objects[::5]):
        with open(path, "r+b") as file:
            content = file.read()
            if number % 3 == 0:
                file.truncate(len(content) // 2)
            elif number % 3 == 1:
                os.unlink(path)
            else:
                file.seek(0)
                file.write(bytes([content[0] ^ 1]))
    images = folder + "/repo/images/"
    os.unlink(images + sorted(name for name in os.listdir(images) if name != "refs")[0])


def first_layer(folder):
    """The path of the archive of the first image's first layer."""
    blobs = f"{folder}/layout0/blobs/sha256/"
    with open(f"{folder}/layout0/index.json") as file:
        manifest = json.load(file)["manifests"][0]["digest"][7:]
    with open(blobs + manifest) as file:
        return blobs + json.load(file)["layers"][0]["digest"][7:]


CASES = [
    Case("init", lambda f: None, lambda f: ["init", "--insecure"], is_whole=False),
    Case("init-nested", lambda f: None, lambda f: ["init", "--insecure"], place="new/deep/repo", is_whole=False),
    Case("pull-new", lambda f: None, lambda f: ["pull", f"oci:{f}/layout0:t", "t"], place="new/repo", is_whole=False),
    Case("pull", lambda f: repository(f), lambda f: ["pull", f"oci:{f}/layout0:t", "t"]),
    Case("pull-shared", lambda f: repository(f, "a"), lambda f: ["pull", f"oci:{f}/shared:t", "t"]),
    Case("pull-moved", lambda f: repository(f, "a"), lambda f: ["pull", f"oci:{f}/layout1:t", "a"]),
    Case("pull-referrers", lambda f: repository(f), lambda f: ["pull", f"oci:{f}/referred:t", "t", "--referrers"]),
    Case("pull-platforms", lambda f: repository(f), lambda f: ["pull", f"oci:{f}/platforms:t", "t", "--all-platforms"]),
    Case("untag-index", with_index, lambda f: ["untag", "t"], repeated=(0, 1, 3)),
    Case(
        "export-index", with_index, lambda f: ["export", "t", f"oci:{f}/out:t", "--all-platforms"], ["out"]),
    Case("pull-disk", lambda f: repository(f), lambda f: ["pull", f"oci:{f}/layout0:t", "t", "--disk", "vmdk", "--disk", "flat"]),
    Case("disk", lambda f: repository(f, "a"), lambda f: ["disk", "a", "--kind", "vmdk"]),
    Case("disk-rm", with_disks, lambda f: ["disk", "rm", "a", "--kind", "vmdk"], repeated=(0, 3)),
    Case("prune-disks", with_disks, lambda f: ["prune", "--disks"]),
    Case("snapshot-import", without_snapshot, lambda f: ["snapshot", "import", f + "/exported", "s"], repeated=(0, 1)),
    Case("snapshot-rm", with_snapshot, lambda f: ["snapshot", "rm", "s"], repeated=(0, 3)),
    Case("snapshot-restore", with_snapshot, lambda f: ["snapshot", "restore", "s", f + "/out.ext4"], ["out.ext4"], repeated=(0, 1)),
    Case("tag", lambda f: repository(f, "a"), lambda f: ["tag", "a", "b"]),
    Case("seal", lambda f: repository(f, "a"), lambda f: ["seal", "a", "b", *signing()]),
    Case("untag", lambda f: repository(f, "a", "b"), lambda f: ["untag", "a"], repeated=(0, 1, 3)),
    Case("gc", with_garbage, lambda f: ["gc"]),
    Case("prune", lambda f: repository(f, "a", "b"), lambda f: ["prune", "--all", "--yes"]),
    Case("upgrade", outdated, lambda f: ["upgrade"]),
    Case(
        "upgrade-old", lambda f: shutil.copytree(FIXTURES + "/base-old-heads", f + "/repo", symlinks=True), lambda f: ["upgrade"]),
    Case("repair", damaged, lambda f: ["fsck", "--repair", "--from", f"oci:{f}/layout0:t"], is_whole=False,
        reports=True),
    Case("copy", two_repositories, lambda f: ["copy", "a", "b", "--from", f + "/other"]),
    Case("export", lambda f: repository(f, "a"), lambda f: ["export", "a", f"oci:{f}/out:t", "--compression", "none"], ["out"]),
    Case("archive", lambda f: repository(f, "a"), lambda f: ["export", "a", f"oci-archive:{f}/out.tar:t", "--compression", "none"], ["out.tar"]),
    Case("rm", lambda f: repository(f, "a", "b"), lambda f: ["rm", "a", "b"], repeated=(0, 1, 3)),
    Case("create-image", lambda f: repository(f), lambda f: ["create-image", f + "/layout0", "name"]),
    Case(
        "import-layer", lambda f: repository(f), lambda f: ["import-layer", "sha256:" + os.path.basename(first_layer(f))],
        standard_input=first_layer, collects=False),
]


def state(case, folder):
    """The state after the command and a collection: names, targets of links, digests of outputs."""
    if case.collects:
        cfsoci("gc", "--repo", case.repository(folder))
    found = {}
    for top in [case.place, *case.outputs]:
        top = folder + "/" + top
        if os.path.isfile(top):
            found[top[len(folder):]] = digest(top)
        for parent, directories, files in os.walk(top):
            for name in directories + files:
                path = os.path.join(parent, name)
                relative = path[len(folder):]
                if not case.collects and not relative.startswith(f"/{case.place}/streams/"):
                    continue
                if os.path.islink(path):
                    found[relative] = os.readlink(path)
                elif os.path.isfile(path):
                    found[relative] = digest(path)
                elif "/objects/" not in relative and os.listdir(path):
                    found[relative] = ""
    return found


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def faults_of_outputs(case, folder):
    for output in case.outputs:
        blobs = f"{folder}/{output}/blobs/sha256"
        for name in os.listdir(blobs) if os.path.isdir(blobs) else []:
            if not name.startswith(".tmp-") and digest(blobs + "/" + name) != name:
                yield f"the layout's blob {name} is another"
        index = f"{folder}/{output}/index.json"
        if os.path.exists(index):
            with open(index) as file:
                for entry in json.load(file)["manifests"]:
                    if not os.path.exists(f"{blobs}/{entry['digest'][7:]}"):
                        yield "the layout's index names a blob that is not there"
