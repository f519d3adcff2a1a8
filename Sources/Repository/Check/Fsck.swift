internal import ComposefsBytes
internal import ComposefsConcurrency
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsSplitStream
internal import Synchronization

extension Repository {
    /// Checks everything in the repository and repairs nothing. Faults are collected in the report. Only a directory that cannot be listed is an
    /// error.
    ///
    /// - Parameters:
    ///   - metadataOnly: do not read all objects; streams and images are still read and verified.
    ///   - subset: read only these objects; the other checks are the same.
    ///   - threads: the number of threads that read; nil for one for each processor.
    ///   - progress: called with the number of objects read and of all, from several threads.
    public func check(
        metadataOnly: Bool = false, subset: CheckSubset? = nil, threads: Int? = nil,
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) throws(RepositoryError) -> FsckReport {
        let threads = max(1, threads ?? Host.processorCount)
        var inventory = try Inventory(self, withObjects: false)
        var report = FsckReport()
        try checkMetadata(&report)
        for temporary in inventory.temporaries { report.notes.append("\(temporary) is left from an interrupted operation, or in use") }
        if !inventory.setAside.isEmpty {
            report.notes.append(
                "\(inventory.setAside.count) damaged files are set aside in \(Layout.damaged)/; garbage collection removes them")
        }
        let chosen: CheckedObjects = metadataOnly ? .none : subset.map { .part($0) } ?? .all
        let links = try checkObjectsAndLinks(&inventory, chosen, threads, progress, &report)
        checkStrays(inventory, &report)
        for (path, kind) in inventory.notDirectories {
            report.add(FsckProblem(.unexpectedFileType, path, detail: "\(Self.name(of: kind)), not a directory"))
        }
        // The objects of an unfinished operation need no names.
        if !inventory.objects.isEmpty, inventory.temporaries.isEmpty, inventory.missing.contains(Layout.streams) {
            report.notes.append("streams/ is missing: there are objects, but no layer, config or manifest that names them")
        }
        for path in inventory.notLinks { checkNotLink(path, &report) }
        add(streamProblems: links.streams, &report)
        add(imageProblems: links.images, &report)
        checkReferences(inventory, &report)
        return report
    }

    // MARK: meta.json

    private func checkMetadata(_ report: inout FsckReport) throws(RepositoryError) {
        do throws(RepositoryError) {
            guard let bytes = try Self.metadataBytes(root) else {
                if isOldFormat {
                    report.notes.append(
                        "there is no meta.json: the repository has the old format, \(RepositoryMetadata.name(of: algorithm)) with EROFS images "
                            + "of format 2; an upgrade brings it into the current one")
                    return
                }
                report.add(FsckProblem(.metadataParseFailed, Layout.metadata, detail: "\(MetadataFault.missing)"))
                return
            }
            report.hasMetadata = true
            let metadata = try RepositoryMetadata(parsing: bytes)
            try metadata.checkReadable()
            guard metadata.algorithm == algorithm else {
                let detail = "expected \(RepositoryMetadata.name(of: metadata.algorithm)), repository opened as \(algorithm.name)"
                report.add(FsckProblem(.metadataAlgorithmMismatch, Layout.metadata, detail: detail))
                return
            }
            let faults = RepositoryMetadata.faults(in: bytes)
            for fault in faults { report.add(FsckProblem(.metadataDamaged, Layout.metadata, detail: "\(fault)")) }
            if faults.isEmpty, try RepositoryMetadata.normalized(bytes) != nil {
                report.notes.append("meta.json is valid, but not in the form that programs write; an upgrade rewrites it in that form")
            }
        } catch {
            switch error {
            case .unsupportedVersion, .incompatibleFeatures:
                report.add(FsckProblem(.metadataAlgorithmMismatch, Layout.metadata, detail: Self.detail(error)))
            default:
                report.add(FsckProblem(.metadataParseFailed, Layout.metadata, detail: Self.detail(error)))
            }
        }
    }

    /// An error's text without the file name, which the problem states already.
    static func detail(_ error: RepositoryError) -> String {
        switch error {
        case .metadata(let fault): "\(fault)"
        case .objectDamaged(_, let fault): "\(fault)"
        case .stream(_, let fault): "\(fault)"
        case .image(_, let fault): "\(fault)"
        default: "\(error)"
        }
    }

    private func checkStrays(_ inventory: Inventory, _ report: inout FsckReport) {
        for (path, kind) in inventory.strays {
            // Every entry of one of the 256 directories should be an object.
            guard path.hasPrefix(Layout.objects + "/"), path.bytes.count(where: { $0 == UInt8(ascii: "/") }) == 2 else {
                report.add(FsckProblem(.strayFile, path, detail: "a \(Self.name(of: kind)) that belongs to no repository"))
                continue
            }
            report.objectsChecked += 1
            report.objectsCorrupted += 1
            let isNamed = ObjectID(objectPath: path.bytes.dropFirst(Layout.objects.count + 1))?.algorithm == algorithm
            if isNamed {
                report.add(FsckProblem(.objectOpenFailed, path, detail: "is a \(Self.name(of: kind)), not a regular file"))
            } else {
                report.add(FsckProblem(.objectInvalidName, path, detail: "the name is no \(algorithm.name) digest"))
            }
        }
        for (path, kind) in inventory.notReferences {
            report.add(FsckProblem(.unexpectedFileType, path, detail: Self.name(of: kind)))
        }
    }

    static func name(of kind: FileKind) -> String {
        switch kind {
        case .regular: "regular file"
        case .directory: "directory"
        case .symbolicLink: "symbolic link"
        case .fifo: "FIFO"
        case .socket: "socket"
        case .characterDevice: "character device"
        case .blockDevice: "block device"
        case .unknown: "file of unknown type"
        }
    }

    private func checkNotLink(_ path: ByteString, _ report: inout FsckReport) {
        if path.hasPrefix(Layout.streams) {
            report.streamsChecked += 1
            report.streamsCorrupted += 1
        } else {
            report.imagesChecked += 1
            report.imagesCorrupted += 1
        }
        report.add(FsckProblem(.entryNotSymlink, path))
    }

    // MARK: Streams

    private func add(streamProblems: [[FsckProblem]], _ report: inout FsckReport) {
        report.streamsChecked += streamProblems.count
        for problems in streamProblems {
            if problems.contains(where: { $0.kind != .missingObjectReference && $0.kind != .missingNamedReference }) {
                report.streamsCorrupted += 1
            }
            for problem in problems { report.add(problem) }
        }
    }

    func problems(ofStream link: Inventory.Link, _ objects: [ObjectID: UInt64], verify: Bool) -> [FsckProblem] {
        let path = Layout.streams + "/" + link.name
        var problems: [FsckProblem] = []
        guard let id = check(link, path, objects, &problems) else { return problems }
        var reader: SplitStreamReader<OpenFile>
        do throws(RepositoryError) {
            reader = try openStream(id, verify: verify)
        } catch {
            problems.append(FsckProblem(.streamOpenFailed, path, detail: Self.detail(error)))
            return problems
        }
        for object in reader.objectReferences where objects[object] == nil {
            problems.append(FsckProblem(.missingObjectReference, path, object: object))
        }
        for reference in reader.namedReferences where objects[reference.id] == nil {
            problems.append(FsckProblem(.missingNamedReference, path, object: reference.id, reference: reference.name))
        }
        do {
            // If the sizes do not add up, the content differs, even if every part of it is intact.
            var total: UInt64 = 0
            var isComplete = true
            while let chunk = try reader.next() {
                switch chunk {
                case .inline(let bytes): total &+= UInt64(bytes.count)
                case .external(let object):
                    guard let size = objects[object] else {
                        isComplete = false
                        continue
                    }
                    total &+= size
                }
            }
            if isComplete, total != reader.totalSize {
                let detail = "the content has \(total) bytes, the header says \(reader.totalSize)"
                problems.append(FsckProblem(.streamReadFailed, path, detail: detail))
            }
        } catch {
            problems.append(FsckProblem(.streamReadFailed, path, detail: "\(error)"))
        }
        return problems
    }

    /// The object that a link leads to; nil if it is missing. Faults of the link are added to the list.
    func check(
        _ link: Inventory.Link, _ path: ByteString, _ objects: [ObjectID: UInt64], _ problems: inout [FsckProblem]
    ) -> ObjectID? {
        guard let id = link.id else {
            problems.append(FsckProblem(.linkMismatch, path, detail: "leads to '\(link.target)', which is no \(algorithm.name) object"))
            return nil
        }
        if link.target != Layout.objectTarget(id) {
            problems.append(FsckProblem(.linkMismatch, path, detail: "leads to '\(link.target)' instead of '\(Layout.objectTarget(id))'"))
        }
        guard objects[id] != nil else {
            problems.append(FsckProblem(.brokenSymlink, path))
            return nil
        }
        return id
    }

    // MARK: References

    private func checkReferences(_ inventory: Inventory, _ report: inout FsckReport) {
        let streams = Set(inventory.streams.map(\.name))
        let images = Set(inventory.images.map(\.name))
        for (path, target) in inventory.streamReferences { check(path, target, Layout.streams, streams, &report) }
        for (path, target) in inventory.imageReferences { check(path, target, Layout.images, images, &report) }
    }

    private func check(
        _ path: ByteString, _ target: ByteString, _ category: ByteString, _ names: Set<ByteString>, _ report: inout FsckReport
    ) {
        let name = Layout.baseName(target)
        let expected = Layout.relativeLink(path, to: category + "/" + name).target
        if target != expected {
            report.add(FsckProblem(.linkMismatch, path, detail: "leads to '\(target)' instead of to an entry of \(category)/"))
        } else if !names.contains(name) {
            report.add(FsckProblem(.brokenSymlink, path))
        }
    }
}
