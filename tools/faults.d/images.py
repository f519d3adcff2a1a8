"""Small OCI layouts for fault tests."""
import hashlib, io, json, os, random, tarfile

LAYER = "application/vnd.oci.image.layer.v1.tar"
NAMED = {"annotations": {"org.opencontainers.image.ref.name": "t"}}


class Layout:
    """An OCI layout that is being written. Its methods return descriptors."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder + "/blobs/sha256")

    def blob(self, content, kind):
        digest = hashlib.sha256(content).hexdigest()
        with open(f"{self.folder}/blobs/sha256/{digest}", "wb") as file:
            file.write(content)
        return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(content)}

    def image(self, layers, architecture="amd64"):
        """An image of uncompressed layers."""
        config = {
            "created": "2026-01-01T00:00:00Z", "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"), "layers": layers,
        }
        return self.blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")

    def finish(self, entries):
        # In one step: others may read the layout meanwhile.
        with open(self.folder + "/index.new", "w") as file:
            json.dump({"schemaVersion": 2, "manifests": entries}, file)
        os.rename(self.folder + "/index.new", self.folder + "/index.json")
        with open(self.folder + "/oci-layout", "w") as file:
            file.write('{"imageLayoutVersion": "1.0.0"}')


def write_layout(folder, seed, layers, files, sizes, first=None, artifact=False):
    """Writes an OCI layout with one image, tag t, of incompressible bytes, and returns the size of its layers. The arguments determine the image.
    Its first layer is that of the image with the seed `first`, if there is one. With `artifact` another manifest refers to the image."""
    choice = random.Random(seed if first is None else first)
    layout = Layout(folder)
    descriptors = []
    for number in range(layers):
        if number == 1 and first is not None:
            choice = random.Random(seed)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for index in range(files):
                content = choice.randbytes(choice.choice(sizes))
                entry = tarfile.TarInfo(f"layer{number}/file{index}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        descriptors.append(layout.blob(archive.getvalue(), LAYER))
    image = layout.image(descriptors)
    entries = [image | NAMED]
    if artifact:
        empty = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
        document = {
            "schemaVersion": 2, "mediaType": image["mediaType"], "artifactType": "application/vnd.example", "config": empty,
            "layers": [layout.blob(choice.randbytes(5000), "application/vnd.example")], "subject": image,
        }
        entries.append(layout.blob(json.dumps(document).encode(), image["mediaType"]) | {"artifactType": document["artifactType"]})
    layout.finish(entries)
    return sum(layer["size"] for layer in descriptors)


def write_index(folder, sizes):
    """Writes an OCI layout with an index, tag t, of two images and of a manifest of an unknown platform."""
    layout = Layout(folder)
    entries = []
    for number, architecture in enumerate(["amd64", "arm64"]):
        choice = random.Random(number + 10)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for size in sizes:
                entry = tarfile.TarInfo(f"file{size}")
                entry.size = size
                tar.addfile(entry, io.BytesIO(choice.randbytes(size)))
        image = layout.image([layout.blob(archive.getvalue(), LAYER)], architecture)
        entries.append(image | {"platform": {"os": "linux", "architecture": architecture}})
    statement = layout.image([layout.blob(b"{}", "application/vnd.in-toto+json")], "unknown")
    entries.append(statement | {"platform": {"os": "unknown", "architecture": "unknown"}})
    kind = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    layout.finish([layout.blob(json.dumps(index).encode(), kind) | NAMED])
