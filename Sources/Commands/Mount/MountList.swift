import ComposefsBytes
import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

/// The mounted images, for `mount` without arguments.
struct MountList: CommandReport {
    static let fields = ["directory", "imageId", "names", "type", "source", "process"]

    var mounts: [ImageMount]
    /// The names of images by their identifiers in hex.
    var names: [ByteString: [ByteString]]

    /// The mounts of images. The EROFS file systems below them are left out, and so is what other namespaces got of the same mount.
    static func mounts() throws -> [ImageMount] {
        struct Place: Hashable { var device, directory: ByteString }
        var seen: Set<Place> = []
        let sorted = try imageMounts().filter { $0.type != "erofs" || $0.image != nil }.sorted {
            ($0.isElsewhere ? 1 : 0, $0.directory) < ($1.isElsewhere ? 1 : 0, $1.directory)
        }
        return sorted.filter { seen.insert(Place(device: $0.device, directory: $0.directory)).inserted }
    }

    static func names(in store: Store) throws -> [ByteString: [ByteString]] {
        var names: [ByteString: [ByteString]] = [:]
        for image in try store.images.records().records {
            for id in image.imageIDs { names[ByteString(id.hex), default: []].append(image.name) }
        }
        return names
    }

    private func names(of mount: ImageMount) -> [ByteString] {
        guard let image = mount.image else { return [] }
        return names[image] ?? (ObjectID(hex: image.description) == nil ? [image] : [])
    }

    var lines: [String] {
        guard !mounts.isEmpty else { return ["No mounts"] }
        let rows = mounts.map { mount in
            let names = names(of: mount)
            let image =
                names.isEmpty ? mount.image.map { Output.printable($0) } ?? "-" : names.map(Output.printable).joined(separator: ", ")
            return [
                Output.printable(mount.directory), mount.isServed ? "fuse" : "kernel",
                mount.isElsewhere ? "process \(mount.process)" : "-", image,
            ]
        }
        return [table(["DIRECTORY", "SERVED BY", "NAMESPACE OF", "IMAGE"], rows)]
    }

    var json: JSONValue { ["mounts": .array(documents)] }

    var documents: [JSONValue] {
        mounts.map { mount in
            let id = mount.image.flatMap { ObjectID(hex: $0.description) }
            return [
                "directory": .string(mount.directory.jsonText), "imageId": .text(id?.hex),
                "names": .array(names(of: mount).map { .string($0.jsonText) }), "type": .string(mount.isServed ? "fuse" : "kernel"),
                "source": .string(mount.source.jsonText),
                // Set if the mount point is to be looked up in that process's namespace.
                "process": mount.isElsewhere ? .integer(Int64(mount.process)) : .null,
            ]
        }
    }
}
