"""Images for the chaos run, their layouts, and a registry that serves them."""
import hashlib, http.server, io, os, random, tarfile
from images import LAYER, NAMED, Layout


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Image:
    """An image in a layout: the digest of its manifest, its layers' diff IDs, and the digest of each file."""

    def __init__(self, layout, manifest, layers, files):
        self.layout, self.manifest, self.layers, self.files = layout, manifest, layers, files


def make_archive(members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for path, content in members:
            member = tarfile.TarInfo(path)
            member.type, member.mode = (tarfile.DIRTYPE, 0o755) if content is None else (tarfile.REGTYPE, 0o644)
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return data.getvalue()


def make_images(folder, seed, count):
    """Images of two layers each. Images share lower layers, and layers share files."""
    chance = random.Random(seed)
    shared = [chance.randbytes(chance.randrange(65, 30000)) for _ in range(8)]
    bases = []
    for number in range((count + 1) // 2):
        files = {f"usr/base{number}-{index}": chance.choice(shared) for index in range(4)}
        files |= {f"usr/{number}-{index}": chance.randbytes(chance.choice([10, 64, 65, 5000, 70000])) for index in range(6)}
        bases.append(files)
    images = []
    for number in range(count):
        base = bases[number // 2]
        own = {f"usr/own{number}-{index}": chance.randbytes(chance.choice([30, 300, 20000])) for index in range(6)}
        own["usr/shared"] = chance.choice(shared)
        layers = [make_archive([("usr", None), *sorted(base.items())]), make_archive([("usr", None), *sorted(own.items())])]
        layout = f"{folder}/layout{number}"
        manifest = write_layout(layout, layers)
        images.append(Image(layout, manifest, [digest_of(layer) for layer in layers], {
            path: digest_of(content) for path, content in (base | own).items()
        }))
    return images


def write_layout(folder, layers):
    """Writes an OCI layout with one image, tag t. Returns the digest of its manifest."""
    layout = Layout(folder)
    image = layout.image([layout.blob(layer, LAYER) for layer in layers])
    layout.finish([image | NAMED])
    return image["digest"]


def make_registry(images):
    """A server on a free loopback port with image N as chaos/N:t."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self, with_body=True):
            parts = self.path.strip("/").split("/")
            content, kind = None, "application/octet-stream"
            if parts == ["v2"]:
                content = b"{}"
            elif len(parts) == 5 and parts[1] == "chaos" and parts[3] in ("manifests", "blobs"):
                image = images[int(parts[2])]
                name = image.manifest if parts[4] == "t" else parts[4]
                path = f"{image.layout}/blobs/sha256/{name[7:]}"
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        content = file.read()
                if parts[3] == "manifests":
                    kind = "application/vnd.oci.image.manifest.v1+json"
            self.send_response(200 if content is not None else 404)
            body = content if content is not None else b'{"errors":[{"code":"NAME_UNKNOWN"}]}'
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def do_HEAD(self):
            self.do_GET(with_body=False)

        def log_message(self, *arguments):
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
