import ComposefsOCI
import Logging

/// The code of the articles. Each part is compiled here, run by a test, and compared with the articles.
enum Snippets {
    static func overview(path: ByteString, target: ByteString) async throws {
        // snippet: overview
        let store = try Store.openOrCreate(path).store
        let pulled = try await store.pull("docker.io/library/alpine")
        try store.mount(pulled.name, at: target)
        // end
    }

    static func registry(path: ByteString, reference: String, say: (String) -> Void) async throws {
        // snippet: registry
        let store = try Store.openOrCreate(path).store
        let registry = Registry(platform: .host, auth: .anonymous, store: store)
        let image = try await registry.pull(reference)
        for layer in image.layers { say("\(layer.diffID ?? layer.digest), \(layer.size) bytes, \(layer.mediaType)") }
        let runtime = image.runtime
        say("runs \((runtime.entrypoint ?? []) + (runtime.command ?? [])) in \(runtime.workingDirectory ?? "/")")
        say("as \(runtime.user ?? "root") with \(runtime.environment)")
        // end
    }

    static func logging(path: ByteString, reference: String) async throws -> PullResult {
        // snippet: logging
        var logger = Logger(label: "images")
        logger.logLevel = .debug
        let store = try Store.openOrCreate(path, logger: logger).store
        let pulled = try await store.pull(reference)
        // end
        return pulled
    }

    static func policy(_ registry: Registry, reference: String, say: (String) -> Void) async throws {
        // snippet: policy
        let image = try await registry.pull(reference, PullOptions(policy: .newer, name: "base"))
        if let before = image.previousManifestDigest { say("\(image.name) moved from \(before)") }
        if case .unreachable(let reason) = image.outcome { say("still the image of last time: \(reason)") }
        // end
    }

    static func progress(_ registry: Registry, reference: String, say: (String) -> Void) async throws {
        // snippet: progress
        let pull = registry.startPull(reference)
        for await event in pull.events {
            switch (event.component, event.phase) {
            case (.image, .resolved(let found)): say("\(found.layers.count) layers, \(event.bytesTotal) bytes")
            case (.layer(let index, _), .bytes): say("layer \(index): \(event.bytesDone) of \(event.bytesTotal)")
            case (.layer(let index, _), .retrying(let reason, let delay)): say("layer \(index): again in \(delay), for \(reason)")
            case (.layer(let index, _), .stored): say("layer \(index) is stored")
            default: break
            }
        }
        let image = try await pull.result
        say("\(image.name) is \(image.manifestDigest)")
        // end
    }

    static func stored(_ registry: Registry, reference: String, say: (String) -> Void) async throws {
        // snippet: stored
        if let image = try await registry.stored(reference) {
            say("\(image.name) is here")
        } else {
            say("not here")
        }
        // end
    }

    static func platforms(_ registry: Registry, reference: String, say: (String) -> Void) async throws {
        // snippet: platforms
        for image in try await registry.pullAllPlatforms(reference) {
            say("\(image.name) is for \(image.platform?.description ?? "every platform")")
        }
        // end
    }

    static func errors(_ registry: Registry, reference: String, say: (String) -> Void) async throws {
        // snippet: errors
        do {
            _ = try await registry.pull(reference)
        } catch let error as RegistryError where error.kind == .unauthorized {
            say("log in first: \(error)")
        } catch OCIError.noMatchingPlatform(let wanted, let available) {
            say("nothing for \(wanted), but for \(available.joined(separator: ", "))")
        } catch {
            say("\(error)")
        }
        // end
    }

    // snippet: command
    struct Command {
        static func main() async throws { try await example(Array(CommandLine.arguments.dropFirst())) }
    }
    // end

    static func asking(_ store: Store) throws {
        // snippet: asking
        for image in try store.images.list().images { print(image.name, image.manifestDigest) }
        let image = try store.image("alpine")  // or a digest, or its first digits
        print(image.manifest.layers.map(\.size), image.config?.runtime.environment ?? [])

        let tree = try store.images.tree(of: image)  // the merged files, as they are mounted
        if let inode = tree.lookup(path: "/etc/os-release") { print(tree.metadata(of: inode)) }

        for diffID in image.layerIdentifiers { print(try store.images.layerInfo(diffID)) }
        // end
    }

    static func serving(_ store: Store, target: ByteString) throws {
        // snippet: serving
        let image = try store.serve("alpine", at: target, ServeOptions(report: { print($0) }))
        image.run()  // returns when the image is unmounted
        // end
    }

    /// Compiled only: it would confine the process of all tests.
    static func confining(path: ByteString) throws -> ByteString {
        // snippet: confining
        let store = try Store.open(path)
        let registry = RegistryOptions()

        var confinement = Confinement(writable: [path], usesNetwork: true, capabilities: [.dacOverride, .fileOwner])
        let files = registry.files()
        confinement.readable += files.readable
        confinement.runsPrograms = files.runsHelpers
        confinement.limitsPaths = !files.runsHelpers
        let applied = try confinement.apply()

        var options = PullOptions()
        options.downloadsEnded = { try applied.endNetwork() }
        let result = try store.pull("alpine", options, registry: registry)
        // end
        return result.name
    }

    static func disks(path: ByteString, at folder: ByteString, say: (String) -> Void) throws {
        // snippet: disks
        let store = try Store.open(path)
        let report = try store.makeDisk(.vmdk, of: "example", at: folder + "/example.disk")
        for file in report.files { say("\(file.path), \(file.size) bytes") }
        // end
    }

    static func keptDisks(_ store: Store, say: (String) -> Void) throws {
        // snippet: kept
        let kept = try store.keepDisk(DiskRequest(.vmdk), of: "example")
        say("\(kept.entryFiles.first?.path ?? "")")

        let (disks, manifest) = (ImageDisks(store.images), try store.image("example").manifestDigest)
        for entry in try disks.list(of: manifest) { say("\(entry.key), \(entry.size ?? 0) bytes") }
        say("\(try disks.remove(of: manifest).count) disks removed")
        // end
    }

    static func micro(path: String, reference: String, layers: String, say: (String) -> Void) async throws {
        // snippet: micro
        let store = try Store.openOrCreate(path).store
        let registry = Registry(platform: .hostLinux, auth: .anonymous, store: store)
        let image = try await registry.pull(reference, PullOptions(policy: .ifMissing))
        for layer in image.layers { say("\(layer.diffID ?? layer.digest)") }
        say("runs \(image.runtime.entrypoint ?? []) with \(image.runtime.environment)")

        let disk = try await store.makeDisk(.layered, of: image.name, at: layers)
        for file in disk.layerPaths { say("\(file)") }

        let release = try store.readFile("/etc/os-release", in: image.name)
        say(String(decoding: release, as: UTF8.self))
        // end
    }

    static func files(_ store: Store, name: String, folder: String, say: (String) -> Void) async throws {
        // snippet: files
        for step in try store.history(name) { say("\(step.createdBy ?? "no record"), \(step.layer?.size ?? 0) bytes") }

        let files = try store.files(of: name)
        for entry in try files.files(in: "/etc") { say("\(entry.path) is a \(entry.kind), \(entry.size) bytes") }
        let hello = try files.file(at: "/usr/bin/hi")  // follows links, inside the image
        say("\(hello.path) of user \(hello.uid)")
        let text = try files.readFile("/etc/hostname")
        say(String(decoding: text, as: UTF8.self))

        var options = UnpackOptions()
        options.ownedByUser = true  // else only root can write them
        try await store.unpack(name, into: folder, options)
        // end
    }

    static func upper(_ disk: ByteString, say: (String) -> Void) throws {
        // snippet: upper
        _ = try makeUpperDisk(size: 4 << 30, at: disk)
        let size = try growDisk(to: 8 << 30, at: disk)
        say("\(size) bytes")
        // end
    }

    static func snapshots(_ store: Store, _ image: StoredImage, _ disk: ByteString, at folder: ByteString, say: (String) -> Void) throws {
        // snippet: snapshots
        let snapshots = SnapshotStore(store.images)
        var options = NewSnapshot()
        options.image = image
        options.imageReference = "example"
        let made = try snapshots.create("ready", from: disk, options)
        say("\(made.snapshot.identity): \(made.newBytes) new bytes")
        try snapshots.restore(made.snapshot, to: folder + "/again.ext4")
        // end
    }

    static func order(_ store: Store) async throws -> UInt64 {
        // snippet: order
        try store.images.untag("docker.io/library/alpine:latest")
        let freed = try await store.collectGarbage().bytesRemoved
        guard try await store.check().isClean else { return 0 }
        // end
        return freed
    }

    /// Compiled only: it would change this machine's boot partition.
    static func booting() throws {
        // snippet: booting
        let store = try Store.open("/sysroot/composefs")
        let partition = try BootPartition("/efi")
        let deployments = try Deployments(beside: store.repository)

        var options = BootPreparation()
        options.arguments = KernelCommandLine(["rw", "quiet"])
        options.attempts = 3
        let prepared = try store.images.prepareBoot("os", on: partition, in: deployments, options)
        if case .merged(_, _, _, let conflicts) = prepared.etc { print("changed locally and in the image: \(conflicts)") }

        if try deployments.status(partition).previous != nil { try deployments.rollBack(partition) }
        // end
    }
}
