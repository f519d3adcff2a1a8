internal import ComposefsBytes
internal import ComposefsLinuxSystem

extension FeatureProber {
    /// Tries what the kernel can mount, with a sample image and its objects.
    mutating func probeMounts(in directory: borrowing FileDescriptor) {
        let name = ".cfsoci-probe-" + ByteString(Host.randomName())
        let base: RootedDirectory
        do throws(SystemError) {
            try directory.makeDirectory(at: name, mode: 0o700)
            // Other users may be able to write in the directory. From here on, this descriptor is used, whatever gets the name.
            base = RootedDirectory(try directory.open(at: name, [.readOnly, .directory, .noFollow]))
        } catch {
            return addNothingMounted(.unknown(error.errno == .notPermitted ? "\(error)" : "this directory is not writable"))
        }
        do throws(SystemError) {
            try writeSample(base)
            probeMounts(of: base)
        } catch {
            addNothingMounted(.failure(error))
        }
        removeSample(base)
        try? directory.removeDirectory(at: name)
    }

    private static let names = [
        ("erofs", "EROFS", "images are served with FUSE"),
        ("fileBackedErofs", "EROFS from a file", "the kernel reads the image from a loop device"),
        ("loopDevices", "Loop devices", "images can only be mounted from files, or served with FUSE"),
        ("dataOnlyLayers", "Overlay of image and objects", "images are served with FUSE"),
        ("overlayVerity", "Overlay that checks fs-verity", "FUSE verifies each file when it is first opened"),
        ("detachedLayers", "Overlay of detached mounts", "the image is attached for a moment in a private mount namespace"),
        ("idmappedMounts", "Mapped owners", "mounts with mapped owners are refused"),
    ]

    private mutating func add(_ name: String, _ outcome: Outcome) {
        guard let (name, title, without) = Self.names.first(where: { $0.0 == name }) else { return }
        add(name, title, without: without, outcome)
    }

    private mutating func addNothingMounted(_ outcome: Outcome) { for (name, _, _) in Self.names { add(name, outcome) } }

    // MARK: Files

    private static let image: ByteString = "image"
    private static let objects: ByteString = "objects"
    private static let target: ByteString = "target"

    private func writeSample(_ base: borrowing RootedDirectory) throws(SystemError) {
        try write(base, Self.image, sample.image)
        for name in [Self.objects, Self.target] { try base.makeDirectory(at: name, mode: 0o700) }
        let objects = try base.directory(at: Self.objects)
        let hasVerity = state(sample.algorithm == 1 ? "fsVeritySha256" : "fsVeritySha512") == .yes
        for (_, object, content) in [sample.good, sample.bad] {
            try objects.makeDirectoryIfMissing(at: ByteString(object.bytes.prefix(2)))
            try write(objects, object, content)
            // If an object is refused here, the mount of the image shows it.
            if hasVerity { try? Self.enableVerity(try objects.open(at: object, .readOnly), sample.algorithm) }
        }
    }

    private func write(_ directory: borrowing RootedDirectory, _ name: ByteString, _ content: [UInt8]) throws(SystemError) {
        try directory.open(at: name, [.writeOnly, .create, .exclusive], mode: 0o600).writeAll(content)
    }

    private func removeSample(_ base: borrowing RootedDirectory) {
        for (_, object, _) in [sample.good, sample.bad] {
            let path = Self.objects + "/" + object
            try? base.unlink(at: path)
            try? base.removeDirectory(at: ByteString(Array(path.bytes.dropLast(object.count - 2))))
        }
        try? base.unlink(at: Self.image)
        for child in [Self.objects, Self.target] { try? base.removeDirectory(at: child) }
    }

    // MARK: Mounts

    private mutating func probeMounts(of base: borrowing RootedDirectory) {
        let image: FileDescriptor
        do throws(SystemError) {
            image = try base.open(at: Self.image, .readOnly)
        } catch {
            return addNothingMounted(.failure(error))
        }
        let file = erofs(image.procPath)
        var loopOutcome = Outcome.yes
        let loop = HeldLoop(makeLoopDevice(image, &loopOutcome))
        let device = loop.path.map { erofs($0) }
        // Either way is sufficient. A failure of the file mount concerns the file system, unless it concerns the file.
        let isByFile = file.state == .yes
        let isByDevice = device?.state == .yes
        add("erofs", isByFile || isByDevice ? .yes : isNoFile(file) ? device ?? .unknown("no loop device is available to try it") : file)
        let noErofs = Outcome.unknown("EROFS could not be mounted")
        add(
            "fileBackedErofs",
            isByFile ? .yes : isNoFile(file) ? .no("the kernel, or this file system, needs a block device") : noErofs)
        add("loopDevices", loopOutcome)
        let source = isByFile ? image.procPath : isByDevice ? loop.path : nil
        guard let source else {
            for name in ["dataOnlyLayers", "overlayVerity", "detachedLayers", "idmappedMounts"] { add(name, noErofs) }
            return
        }
        probeOverlays(from: source, base)
        add("idmappedMounts", idmapped(source))
        loop.end()
    }

    private func erofs(_ source: ByteString) -> Outcome {
        do throws(MountError) {
            _ = try mountErofs(from: source)
            return .yes
        } catch {
            if case .image(let system, _) = error, system.errno == .notBlockDevice {
                return Outcome(state: .no, flags: [Self.noFile: true])
            }
            return .failure(error)
        }
    }

    private static let noFile = "needsBlockDevice"

    private func isNoFile(_ outcome: Outcome) -> Bool { outcome.flags[Self.noFile] == true }

    private func makeLoopDevice(_ image: borrowing FileDescriptor, _ outcome: inout Outcome) -> LoopDevice? {
        do throws(SystemError) {
            return try image.makeLoopDevice()
        } catch {
            outcome = .failure(error)
            return nil
        }
    }

    private mutating func probeOverlays(from source: ByteString, _ base: borrowing RootedDirectory) {
        var worked: LayerSyntax?
        var failure: Outcome?
        for syntax in LayerSyntax.allCases {
            let outcome = overlay(source, base, syntax, verity: false)
            if outcome.state == .yes {
                worked = syntax
                break
            }
            failure = outcome
        }
        guard let worked else {
            add("dataOnlyLayers", failure ?? .no(""))
            add("overlayVerity", .unknown("image and objects could not be combined"))
            add("detachedLayers", failure ?? .no(""))
            return
        }
        let isDetached = LayerSyntax.forDetached.contains(worked)
        add("dataOnlyLayers", .yes(worked == .joinedPathsOfAttached ? "lowerdir=IMAGE::OBJECTS" : "datadir+"))
        let hasVerity = state(sample.algorithm == 1 ? "fsVeritySha256" : "fsVeritySha512") == .yes
        if !hasVerity {
            add("overlayVerity", .no("no fs-verity"))
        } else if Self.requiresSignatures {
            add("overlayVerity", .unknown("only signed objects can have fs-verity"))
        } else {
            add("overlayVerity", overlay(source, base, worked, verity: true))
        }
        add(
            "detachedLayers",
            isDetached ? .yes(worked == .descriptors ? "by descriptor" : "by path") : .no("the kernel requires attached layers"))
    }

    /// Tries whether the objects are visible through the image and, with verity, only the intact ones.
    private func overlay(
        _ source: ByteString, _ base: borrowing RootedDirectory, _ syntax: LayerSyntax, verity: Bool
    ) -> Outcome {
        do throws(MountError) {
            var objects = Directories()
            do throws(SystemError) {
                objects.add(owning: try base.open(at: Self.objects, [.readOnly, .directory]))
            } catch {
                throw .system(error)
            }
            let path = base.descriptor.kernelPath
            // A new mount each time: one that was attached in a thread's mount namespace ended with the thread.
            let image = try mountErofs(from: source)
            let mount = try mountOverlay(image, objects, verity, path + "/" + Self.target, MountOptions(), ways: [syntax])
            do throws(SystemError) {
                guard try content(mount, sample.good.name) == sample.good.content else { return .no("a file had other content") }
            } catch {
                return .no(error.description)
            }
            guard verity else { return .yes }
            do throws(SystemError) {
                _ = try content(mount, sample.bad.name)
                return .no("a file whose object has another digest was served")
            } catch {
                return error.errno == .inputOutput ? .yes : .no(error.description)
            }
        } catch {
            return .failure(error)
        }
    }

    private func content(_ mount: borrowing FileDescriptor, _ name: ByteString) throws(SystemError) -> [UInt8] {
        try mount.open(at: name, .readOnly).readAll(limit: 1 << 20)
    }

    private func idmapped(_ source: ByteString) -> Outcome {
        let namespace: FileDescriptor
        do throws(SystemError) {
            namespace = try Host.makeUserNamespace(first: 100_000, count: 65536)
        } catch {
            return .unknown("no user namespace could be created (\(error))")
        }
        do throws(MountError) {
            let mount = try mountErofs(from: source)
            do throws(SystemError) { try mount.mapMountOwners(by: namespace) } catch { throw .system(error) }
            return .yes
        } catch {
            return .failure(error)
        }
    }
}

/// A loop device, if one is available, that is held until the end.
private struct HeldLoop: ~Copyable {
    let path: ByteString?
    private let device: LoopDevice?

    init(_ device: consuming LoopDevice?) {
        path = device?.path
        self.device = device
    }

    consuming func end() {}
}
