import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransfer
import ComposefsTransports
import ComposefsVarlink

extension Session {
    func hasLayer(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let diffID = try digest(try parameters.string("diff_id"), "diff_id")
        try parameters.finish()
        do {
            let stream = try store.images.layerStream(diffID)
            return MethodReply(["present": true, "layer_verity": .string(stream.hex)])
        } catch ImageStoreError.noSuchLayer {
            return MethodReply(["present": false])
        }
    }

    /// All descriptors are in one reply: the pipe, the repository's objects, and one whose end tells that the client has read all.
    func getLayer(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        var wanted = try parameters.object("params")
        try parameters.finish()
        guard try wanted.optionalObject("storage") == nil, let text = try wanted.optionalString("diff_id") else {
            throw MethodError.invalidRequest("params: a layer of a repository is named by diff_id, and by nothing else")
        }
        let readsAll = try wanted.optionalBool("consumer_has_cap_dac_override") ?? false
        try wanted.finish()
        let diffID = try digest(text, "diff_id")
        _ = try store.images.layerStream(diffID)
        // A handle of its own: no collection removes what the client reads, even after it has closed this one.
        let own = try Store.open(
            store.repository.path, OpenOptions(readOnly: true, wait: .upTo(options.lockPatience), cancellation: call.cancellation))
        let stream = try own.images.layerStream(diffID)
        let objects = SharedDescriptor(try own.repository.openObjectsDirectory())
        let pipe = try LocalPipe()
        let keeper = try LocalPipe()
        try pipe.write.descriptor.setNonBlocking()
        let sender = LayerSender(own, stream, objects, pipe.write, keeper.read, readsAll: readsAll, connection.server)
        guard connection.server.beginTransfer() else {
            throw MethodError.internalError("\(options.mostTransfers) layers are being sent already")
        }
        let isStarted = startThread("layer") { [server = connection.server] in
            sender.run()
            server.endTransfer()
        }
        guard isStarted else {
            connection.server.endTransfer()
            throw SystemError(operation: "start a thread", errno: .tryAgain)
        }
        return MethodReply(["dir_count": 1], [pipe.read, objects, keeper.write])
    }

    func putLayer(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let diffID = try digest(try parameters.string("diff_id"), "diff_id")
        let isZeroCopy = try parameters.bool("zerocopy")
        try parameters.finish()
        guard !isZeroCopy else { throw MethodError.invalidRequest("zerocopy: objects are copied, never shared") }
        guard call.descriptors.count >= 2 else {
            throw MethodError.invalidRequest(
                "a layer needs a pipe and at least one directory, and there are \(call.descriptors.count) descriptors")
        }
        let archive = DirectoryStreamArchive(
            call.descriptors[0], directories: Array(call.descriptors.dropFirst()), connection, call.cancellation)
        let (stream, statistics) = try store.images.storeLayer(diffID, from: archive)
        if statistics == nil { try archive.drain() }
        return MethodReply([
            "layer_verity": .string(stream.hex), "already_present": .bool(statistics == nil), "objects_reflinked": 0,
            "objects_hardlinked": 0, "objects_copied": .integer(Int64(statistics?.newObjects ?? 0)),
            "objects_already_present": .integer(Int64(statistics?.presentObjects ?? 0)),
        ])
    }

    func finalizeImage(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let manifest = try parameters.string("manifest_json")
        let config = try parameters.string("config_json")
        let name = try parameters.optionalString("name").map { ByteString($0) }
        var stated: [ContentDigest] = []
        for var layer in try parameters.objects("layers") {
            let diffID = try digest(try layer.string("diff_id"), "diff_id")
            let verity = try layer.string("layer_verity")
            try layer.finish()
            let stream = try store.images.layerStream(diffID)
            guard stream.hex == verity else {
                throw MethodError.invalidDigest("layer_verity: the layer \(diffID) is \(stream.hex), not \(ByteString(verity))")
            }
            stated.append(diffID)
        }
        try parameters.finish()
        let found = try ImageConfig(parsing: Array(config.utf8)).diffIDs
        guard found == stated else { throw MethodError.invalidRequest("layers: they are not those of the config, in this order") }
        // A stored image has a tag from the start, so that nothing of it is lost. Without a name it gives that up again.
        let tag = name ?? ByteString("cfsoci.varlink/\(connection.number)-\(connection.server.newHandle())")
        var pull = PullOptions(name: tag)
        pull.cancellation = call.cancellation
        pull.signaturePolicy = try LoadedPolicy.ofHost(options.signaturePolicy)
        let source = try ClientDocuments(store.images, manifest: Array(manifest.utf8), config: Array(config.utf8))
        let result = try pullImage(from: source, into: store.repository, pull)
        if name == nil { try store.images.untag(tag, force: true) }
        return MethodReply([
            "manifest_digest": .string(result.manifestDigest.description), "manifest_verity": .string(result.manifestStream.hex),
            "config_digest": .string(result.configDigest.description), "config_verity": .string(result.configStream.hex),
        ])
    }
}

/// A source with a client's documents and the store's layers. A signature policy does not know it: only its global default applies.
private struct ClientDocuments: ImageSource {
    private let images: ImageStore
    private let manifest: [UInt8]
    private let config: [UInt8]
    private let digest: ContentDigest

    init(_ images: ImageStore, manifest: [UInt8], config: [UInt8]) throws {
        self.images = images
        self.manifest = manifest
        self.config = config
        digest = try Manifest(parsing: manifest).config.digest
    }

    var canonicalName: String { digest.description }

    func rootManifest() -> SourceManifest { SourceManifest(bytes: manifest) }

    func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
        throw ImageStoreError.noSuchImage(ByteString(descriptor.digest.description))
    }

    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        guard descriptor.digest == digest else { throw ImageStoreError.noSuchLayer(descriptor.digest) }
        return DataBlobReader(config)
    }
}
