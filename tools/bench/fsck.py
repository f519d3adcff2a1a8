"""How fast `fsck` reads, against `openssl dgst` over the same files on all processors.

The repository holds one image of 30,000 files, 430 MB in all, in three layers; it is in the page cache, so what is measured is the
digests and what each program needs besides. OpenSSL gets the objects in portions, as many processes at a time as there are processors,
with the hash that the repository's names are made of. `fsck` does more: it lists the repository, computes Merkle trees, reads streams and
EROFS images, and checks documents and references.

  tools/bench/run fsck [--runs N] [--check]

Prints the ratio of the medians for each algorithm. --check fails if one is above the limit.
"""

import argparse
import hashlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import time

FILES, BYTES, LAYERS, LIMIT = 30_000, 430_000_000, 3, 1.25
ALGORITHMS = {"sha256": "fsverity-sha256-12", "sha512": "fsverity-sha512-12"}
COMMAND = os.environ["CFSOCI"]


def make_layout(path):
    """Files of sizes as in a root file system: most small, a few large, each with content of its own."""
    if os.path.exists(os.path.join(path, "index.json")):
        return
    blobs = os.path.join(path, "blobs/sha256")
    os.makedirs(blobs, exist_ok=True)
    source = random.Random(1)
    weights = [source.lognormvariate(0, 1.5) for _ in range(FILES)]
    scale = (BYTES - 100 * FILES) / sum(weights)

    def blob(content):
        digest = hashlib.sha256(content).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as file:
            file.write(content)
        return digest, len(content)

    layers = []
    for layer in range(LAYERS):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(layer, FILES, LAYERS):
                entry = tarfile.TarInfo(f"usr/d{number % 512}/f{number}")
                entry.size = 100 + int(weights[number] * scale)
                tar.addfile(entry, io.BytesIO(source.randbytes(entry.size)))
        layers.append(blob(archive.getvalue()))
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d, _ in layers]}}
    ).encode()
    prefix = "application/vnd.oci.image."

    def descriptor(kind, found):
        return {"mediaType": prefix + kind, "digest": f"sha256:{found[0]}", "size": found[1]}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": prefix + "manifest.v1+json",
            "config": descriptor("config.v1+json", blob(config)),
            "layers": [descriptor("layer.v1.tar", layer) for layer in layers],
        }
    ).encode()
    with open(os.path.join(path, "oci-layout"), "w") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')
    with open(os.path.join(path, "index.json"), "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", blob(manifest))]}, file)


def timed(arguments, **options):
    started = time.monotonic()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, **options)
    return time.monotonic() - started


def measure(directory, layout, name, algorithm, runs):
    repository = os.path.join(directory, f"fsck-{name}")
    if not os.path.exists(os.path.join(repository, "meta.json")):
        subprocess.run([COMMAND, "-q", "init", repository, "--insecure", "--algorithm", algorithm], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([COMMAND, "-q", "pull", "oci:" + layout, "image", "--repo", repository], check=True, stdout=subprocess.DEVNULL)
    objects = []
    for folder, _, files in os.walk(os.path.join(repository, "objects")):
        objects += [os.path.join(folder, file) for file in files]
    size = sum(os.path.getsize(path) for path in objects)
    names = "\0".join(objects).encode()
    processors = len(os.sched_getaffinity(0))
    portion = max(1, min(1000, len(objects) // (processors * 8)))
    openssl = ["xargs", "-0", "-P", str(processors), "-n", str(portion), "openssl", "dgst", "-" + name]
    times = {"fsck": [], "openssl": []}
    for run in range(runs + 1):
        ours = timed([COMMAND, "fsck", "--repo", repository])
        theirs = timed(openssl, input=names)
        # The first one brings the files into memory.
        if run > 0:
            times["fsck"].append(ours)
            times["openssl"].append(theirs)
    ours, theirs = statistics.median(times["fsck"]), statistics.median(times["openssl"])
    ratio = ours / theirs
    print(
        f"{name}: {len(objects)} objects, {size / 1e6:.0f} MB, {processors} processors: fsck {ours:.3f} s ({size / ours / 1e6:.0f} MB/s), "
        f"openssl dgst {theirs:.3f} s ({size / theirs / 1e6:.0f} MB/s), ratio {ratio:.2f} (limit {LIMIT})"
    )
    return ratio


def main():
    parser = argparse.ArgumentParser(prog="tools/bench/run fsck")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    directory = os.environ["BENCH_DIR"]
    os.makedirs(directory, exist_ok=True)
    layout = os.path.join(directory, "fsck-layout")
    make_layout(layout)
    ratios = [measure(directory, layout, name, algorithm, arguments.runs) for name, algorithm in ALGORITHMS.items()]
    if arguments.check and max(ratios) > LIMIT:
        sys.exit(f"fsck takes more than {LIMIT} times as long as openssl dgst")


main()
