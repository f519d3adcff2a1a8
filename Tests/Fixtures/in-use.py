#!/usr/bin/env python3
"""Mounts an image, moves its tag, collects garbage, reads everything and unmounts, in many rounds. Needs root.

usage: in-use.py CFSOCI ROUNDS [SEED]     prints the seed first; exit status 1 and the fault of the first round that fails

Rounds alternate between the kernel and FUSE. While the image is being mounted, another process collects garbage, a random time before or after the
mount begins. Every file is compared with the pulled one. After the unmount, all objects of the image must be removed.
"""
import hashlib, io, json, os, random, shutil, subprocess, sys, tarfile, tempfile, time

program, rounds = os.path.realpath(sys.argv[1]), int(sys.argv[2])
seed = sys.argv[3] if len(sys.argv) > 3 else str(random.SystemRandom().randrange(1 << 32))
print("seed", seed, flush=True)
chance = random.Random(seed)
work = tempfile.mkdtemp(prefix="in-use-")
repository, target = work + "/repo", work + "/mounted"
environment = {name: value for name, value in os.environ.items() if not name.startswith("CFSOCI_")}
reads = collections = 0


class Failure(Exception):
    pass


def start(*arguments):
    return subprocess.Popen(
        [program, "--repo", repository, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process):
    output, error = process.communicate(timeout=60)
    if process.returncode != 0:
        raise Failure("%s: status %d: %s" % (" ".join(process.args), process.returncode, error.decode()))
    return output


def run(*arguments):
    return finish(start(*arguments))


def leases():
    """The uses of images. The last process that ends its use removes the directory, perhaps at this moment."""
    try:
        return os.listdir(repository + "/.leases")
    except FileNotFoundError:
        return []


def digest(content):
    return hashlib.sha256(content).hexdigest()


def make_image(name):
    """A layout with one image; its files, by path."""
    files = {"usr/file%d" % number: chance.randbytes(chance.randrange(65, 20000)) for number in range(20)}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for path, content in [("usr", None)] + sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.type, member.mode = (tarfile.REGTYPE, 0o644) if content is not None else (tarfile.DIRTYPE, 0o755)
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    layout = work + "/" + name
    os.makedirs(layout + "/blobs/sha256")

    def blob(content, kind):
        with open(layout + "/blobs/sha256/" + digest(content), "wb") as file:
            file.write(content)
        return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest(content), "size": len(content)}

    layer = blob(data.getvalue(), "layer.v1.tar")
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"), "layers": [layer]}
    with open(layout + "/oci-layout", "w") as file:
        json.dump({"imageLayoutVersion": "1.0.0"}, file)
    with open(layout + "/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}, file)
    return layout, files


def objects():
    found = set()
    for folder, _, names in os.walk(repository + "/objects"):
        found.update(os.path.join(folder, name) for name in names)
    return found


def read_all(files):
    global reads
    for path, content in files.items():
        with open(os.path.join(target, path), "rb") as file:
            if file.read() != content:
                raise Failure("%s has another content" % path)
        reads += 1


def one_round(number, old, new):
    global collections
    layout, files = old
    run("pull", "oci:" + layout, "tag")
    run("prune")
    own = objects()
    fuse = ["--fuse"] if number % 2 else []
    # Another process collects while the image is being mounted. Either may be first.
    delay = chance.uniform(-0.03, 0.03)
    if delay < 0:
        other = start("prune")
        time.sleep(-delay)
    mounting = start("mount", *fuse, "tag", target)
    if delay >= 0:
        time.sleep(delay)
        other = start("prune")
    finish(mounting)
    try:
        run("pull", "oci:" + new[0], "tag")
        finish(other)
        run(chance.choice(["prune", "gc"]))
        collections += 3
        read_all(files)
        # The image's documents and layers also exist, so it can get a name again.
        if own - objects():
            raise Failure("%d objects of the mounted image are gone" % len(own - objects()))
    finally:
        run("umount", target)
    for _ in range(400):
        if not leases():
            break
        time.sleep(0.01)
    else:
        raise Failure("the lease is left after the unmount")
    # A mount namespace that another program made meanwhile has the mount, too, until it ends.
    for _ in range(100):
        run("prune")
        left = own & objects()
        if not left:
            break
        time.sleep(0.1)
    run("untag", "tag")
    run("prune")
    if own & objects():
        raise Failure("%d objects are left, %d before the other image was removed" % (len(own & objects()), len(left)))
    if left:
        raise Failure("%d objects of the image were left after it was unmounted" % len(left))


number = 0
try:
    os.mkdir(target)
    run("init", "--insecure")
    images = [make_image("one"), make_image("two")]
    for number in range(rounds):
        one_round(number, images[number // 2 % 2], images[1 - number // 2 % 2])
    print("%d rounds, %d files read, %d collections while mounted, 0 failures" % (rounds, reads, collections))
except (Failure, OSError, subprocess.TimeoutExpired) as failure:
    print("round %d: %s" % (number, failure))
    sys.exit(1)
finally:
    while subprocess.run(["umount", "--lazy", target], capture_output=True).returncode == 0:
        pass
    shutil.rmtree(work)
