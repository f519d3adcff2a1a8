import ComposefsBytes
import ComposefsConcurrency
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsRepository
import ComposefsVarlink

extension Session {
    func callRepository(_ method: String, _ call: ServiceCall) throws -> MethodReply {
        switch method {
        case "InitRepository": try initializeRepository(call)
        case "EnsureRepository": try ensureRepository(call)
        case "OpenRepository": try openRepository(call)
        case "CloseRepository": try closeRepository(call)
        case "Fsck": try checkRepository(call)
        case "Gc": try collectGarbage(call)
        case "ImageObjects": try imageObjects(call)
        case "ListImageRefs": try imageReferences(call)
        case "Mount": try mount(call)
        default: preconditionFailure("a method of the description has no implementation")
        }
    }

    // MARK: Making and opening

    private func openOptions(_ call: ServiceCall, readOnly: Bool = false, upgradeOldFormat: Bool = false) -> OpenOptions {
        OpenOptions(
            requireVerity: options.requiresVerity, upgradeOldFormat: upgradeOldFormat, readOnly: readOnly, trustsOwner: options.trustsOwner,
            wait: .upTo(options.lockPatience), cancellation: call.cancellation)
    }

    /// The parameters of `InitRepository` and `EnsureRepository`.
    private func configuration(_ call: ServiceCall) throws -> (path: ByteString, RepositoryConfiguration) {
        var parameters = call.parameters
        let path = try absolutePath(try parameters.string("path"))
        let name = try parameters.optionalString("algorithm") ?? "fsverity-sha512-12"
        let isInsecure = try parameters.optionalBool("insecure") ?? false
        try parameters.finish()
        guard let algorithm = RepositoryMetadata.algorithm(named: name) else {
            throw MethodError.invalidSpec("the algorithm is fsverity-sha512-12 or fsverity-sha256-12, not \(ByteString(name))")
        }
        guard !(isInsecure && options.requiresVerity) else { throw MethodError.invalidSpec("this service requires fs-verity") }
        return (path, RepositoryConfiguration(algorithm: algorithm, verity: isInsecure ? .insecure : .required))
    }

    /// The service has no directory that a client could mean by a relative path.
    private func absolutePath(_ text: String) throws -> ByteString {
        guard text.hasPrefix("/") else { throw MethodError.invalidSpec("the path \(ByteString(text)) does not begin with a slash") }
        return ByteString(text)
    }

    private func initialize(_ path: ByteString, _ configuration: RepositoryConfiguration, _ call: ServiceCall) throws -> Bool {
        if let name = try Repository.foreignEntry(of: path) {
            throw MethodError.invalidSpec("\(path): the directory is not empty and no repository: it has \"\(name)\"")
        }
        return try Store.initialize(path, configuration, openOptions(call)).created
    }

    private func initializeRepository(_ call: ServiceCall) throws -> MethodReply {
        let (path, configuration) = try configuration(call)
        return MethodReply(["created": .bool(try initialize(path, configuration, call))])
    }

    private func ensureRepository(_ call: ServiceCall) throws -> MethodReply {
        let (path, configuration) = try configuration(call)
        let status: String
        do {
            _ = try Store.open(path, openOptions(call))
            status = "Opened"
        } catch RepositoryError.oldFormat {
            _ = try Store.open(path, openOptions(call, upgradeOldFormat: true))
            status = "Upgraded"
        } catch let error as RepositoryError where error.isMissing {
            // Another client may have made it in the meantime.
            status = try initialize(path, configuration, call) ? "Created" : "Opened"
        }
        return MethodReply(["status": .string(status)])
    }

    private func openRepository(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let text = try parameters.optionalString("path")
        let isUser = try parameters.optionalBool("user") ?? false
        let isSystem = try parameters.optionalBool("system") ?? false
        try parameters.finish()
        let path: ByteString
        switch (text, isUser, isSystem) {
        case (let text?, false, false): path = try absolutePath(text)
        case (nil, true, false):
            guard let found = options.userRepository else {
                throw MethodError.invalidSpec("HOME is not set in the service, so the user has no repository")
            }
            path = found
        case (nil, false, true): path = options.systemRepository
        default: throw MethodError.invalidSpec("exactly one of path, user and system names the repository")
        }
        let store: Store
        do {
            store = try open(path, call)
        } catch let error as RepositoryError {
            if case .cancelled = error { throw error }
            throw MethodError.repositoryNotFound("\(error)")
        }
        let device = try Self.device(ofObjectsIn: store.repository)
        return MethodReply([
            "handle": JSONValue(try addHandle(store)), "hash_algorithm": .string(store.repository.algorithm.name),
            "objects_device_id": JSONValue(device),
        ])
    }

    /// The device on which objects are: clients compare those of two repositories.
    private static func device(ofObjectsIn repository: Repository) throws -> UInt64 {
        do {
            return try repository.openObjectsDirectory().status().device
        } catch let error as RepositoryError where error.isMissing {
            // A new repository has none.
            return try FileDescriptor.open(repository.path, [.pathOnly, .directory]).status().device
        }
    }

    /// One from before `meta.json` is opened for reading only.
    private func open(_ path: ByteString, _ call: ServiceCall) throws -> Store {
        do {
            return try Store.open(path, openOptions(call))
        } catch RepositoryError.oldFormat {
            return try Store.open(path, openOptions(call, readOnly: true))
        }
    }

    private func closeRepository(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let handle = try parameters.number("handle")
        try parameters.finish()
        try removeHandle(handle)
        return MethodReply()
    }

    // MARK: Checking and collecting

    private func checkRepository(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let isOfMetadata = try parameters.optionalBool("metadata_only") ?? false
        try parameters.finish()
        return MethodReply(try store.repository.check(metadataOnly: isOfMetadata).varlink)
    }

    private func collectGarbage(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let isDryRun = try parameters.bool("dry_run")
        let roots = try parameters.strings("roots").map { ByteString($0) }
        try parameters.finish()
        let report = try store.repository.collectGarbage(
            dryRun: isDryRun, extraRoots: roots, wait: .upTo(options.lockPatience), cancellation: call.cancellation)
        return MethodReply([
            "result": [
                "objects_removed": .integer(Int64(report.objectsRemoved)), "objects_bytes": JSONValue(report.bytesRemoved),
                "images_pruned": .integer(Int64(report.imagesRemoved)), "streams_pruned": .integer(Int64(report.streamsRemoved)),
            ], "dry_run": .bool(isDryRun),
        ])
    }

    // MARK: Images

    private func imageObjects(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let repository = try store(&parameters).repository
        let name = try parameters.string("name")
        try parameters.finish()
        let objects = try repository.imageObjects(try repository.image(Self.imageName(name)))
        let prefix = repository.algorithm.name + ":"
        return MethodReply(["object_ids": .array(objects.map { .string(prefix + $0.hex) })])
    }

    private func imageReferences(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        try parameters.finish()
        let references = try store.repository.imageReferences().map { reference -> JSONValue in
            ["name": .string(reference.name.jsonText), "digest": .string(reference.entry.jsonText)]
        }
        return MethodReply(["images": .array(references)])
    }

    private func mount(_ call: ServiceCall) throws -> MethodReply {
        var parameters = call.parameters
        let store = try store(&parameters)
        let name = try parameters.string("name")
        let options = try detachedMountOptions(&parameters, call, MethodError.invalidSpec)
        try parameters.finish()
        let mount = SharedDescriptor(try store.mountDetached(named: Self.imageName(name), options))
        return MethodReply(["fd_index": 0], [mount])
    }

    /// composefs-rs writes a reference with its directory.
    private static func imageName(_ name: String) -> ByteString {
        ByteString(name.hasPrefix("refs/") ? String(name.dropFirst(5)) : name)
    }

    /// The parameter `options` of a mount, with the descriptors of the call.
    ///
    /// - Parameter error: makes the error of the interface for options that contradict each other.
    func detachedMountOptions(
        _ parameters: inout ParameterReader, _ call: ServiceCall, _ error: (String) -> MethodError
    ) throws -> MountOptions {
        var mount = try parameters.object("options")
        let hasOverlay = try mount.optionalBool("overlay") ?? false
        let isWritable = try mount.optionalBool("read_write") ?? false
        try mount.finish()
        let wanted = hasOverlay ? 2 : 0
        guard call.descriptors.count == wanted else {
            throw error("these options need \(wanted) descriptors, and there are \(call.descriptors.count)")
        }
        guard hasOverlay || !isWritable else { throw error("read_write needs overlay") }
        guard hasOverlay else { return MountOptions() }
        return MountOptions(
            upperDirectory: try Self.path(of: call.descriptors[0], error), workDirectory: try Self.path(of: call.descriptors[1], error),
            readWrite: isWritable)
    }

    /// A path by which the kernel finds a directory that a client has opened. Kernels that take no descriptors need one in this process's mount
    /// namespace, so that is preferred if it leads to the same directory.
    private static func path(of passed: SharedDescriptor, _ error: (String) -> MethodError) throws -> ByteString {
        let own = try passed.descriptor.status()
        guard own.kind == .directory else { throw error("a descriptor of the overlay is no directory") }
        let path = passed.descriptor.kernelPath
        if let found = try? FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true), found.device == own.device,
            found.inode == own.inode
        {
            return path
        }
        return passed.descriptor.procPath
    }
}

extension RepositoryError {
    /// Whether there is no repository, and nothing else that could be one.
    fileprivate var isMissing: Bool {
        switch self {
        case .notInitialized: true
        case .system(let error): error.errno == .noEntry
        default: false
        }
    }
}

extension FsckReport {
    var varlink: JSONValue {
        func count(_ number: Int) -> JSONValue { .integer(Int64(number)) }
        return [
            "ok": .bool(isOK), "has_metadata": .bool(hasMetadata), "objects_checked": count(objectsChecked),
            "objects_corrupted": count(objectsCorrupted), "streams_checked": count(streamsChecked),
            "streams_corrupted": count(streamsCorrupted), "images_checked": count(imagesChecked),
            "images_corrupted": count(imagesCorrupted), "broken_links": count(brokenLinks), "missing_objects": count(missingObjects),
            "errors": .array(problems.map { .string($0.description) }),
        ]
    }
}
