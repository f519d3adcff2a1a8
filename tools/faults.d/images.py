"""Small OCI layouts for fault tests."""
import hashlib, io, json, os, random, tarfile


def write_layout(folder, seed, layers, files, sizes):
    """Writes an OCI layout with one image, tag t, of incompressible bytes, and returns the size of its layers. The arguments determine the image."""
    choice = random.Random(seed)
    os.makedirs(folder + "/blobs/sha256")

    def blob(content, kind):
        digest = hashlib.sha256(content).hexdigest()
        with open(f"{folder}/blobs/sha256/{digest}", "wb") as file:
            file.write(content)
        return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(content)}

    descriptors = []
    for number in range(layers):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for index in range(files):
                content = choice.randbytes(choice.choice(sizes))
                entry = tarfile.TarInfo(f"layer{number}/file{index}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        descriptors.append(blob(archive.getvalue(), "application/vnd.oci.image.layer.v1.tar"))
    config = {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in descriptors]},
    }
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"), "layers": descriptors,
    }
    entry = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    with open(folder + "/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
    with open(folder + "/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion": "1.0.0"}')
    return sum(layer["size"] for layer in descriptors)
