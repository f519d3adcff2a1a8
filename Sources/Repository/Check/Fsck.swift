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
        let inventory = try Inventory(self)
        var report = FsckReport()
        try checkMetadata(&report)
        for temporary in inventory.temporaries { report.notes.append("\(temporary) is left from an interrupted operation, or in use") }
        if !inventory.setAside.isEmpty {
            report.notes.append(
                "\(inventory.setAside.count) damaged files are set aside in \(Layout.damaged)/; garbage collection removes them")
        }
        // Streams and images are few and large: they are checked at the same time as the objects.
        let links = LinkFaults()
        let beside = WorkerPool(threads: 1)
        let verifiesStreams = metadataOnly || subset != nil
        beside.submit {
            let objects = inventory.objects
            let streams = parallelMap(inventory.streams, threads: metadataOnly ? threads : 1) {
                self.problems(ofStream: $0, objects, verify: verifiesStreams)
            }
            let images = parallelMap(inventory.images, threads: metadataOnly ? threads : 1) { self.problems(ofImage: $0, objects) }
            links.found.withLock { $0 = (streams, images) }
        }
        if !metadataOnly { checkObjects(inventory, subset, threads, progress, &report) }
        beside.shutdown()
        checkStrays(inventory, &report)
        for (path, kind) in inventory.notDirectories {
            report.add(FsckProblem(.unexpectedFileType, path, detail: "\(Self.name(of: kind)), not a directory"))
        }
        // The objects of an unfinished operation need no names.
        if !inventory.objects.isEmpty, inventory.temporaries.isEmpty, inventory.missing.contains(Layout.streams) {
            report.notes.append("streams/ is missing: there are objects, but no layer, config or manifest that names them")
        }
        for path in inventory.notLinks { checkNotLink(path, &report) }
        let (streams, images) = links.found.withLock { $0 }
        add(streamProblems: streams, &report)
        add(imageProblems: images, &report)
        checkReferences(inventory, &report)
        return report
    }

    /// The faults of the entries of `streams/` and `images/`, one list for each entry.
    private final class LinkFaults: Sendable {
        let found = Mutex<(streams: [[FsckProblem]], images: [[FsckProblem]])>(([], []))
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

    // MARK: Objects

    /// The bytes of objects that a thread takes at once.
    private static let chunkBytes: UInt64 = 4 << 20
    private static let chunkObjects = 128
    /// What is read of an object at a time: it stays in the processor's cache until it is hashed. Bytes.
    private static let readBytes = 256 << 10

    private func checkObjects(
        _ inventory: Inventory, _ subset: CheckSubset?, _ threads: Int, _ progress: (@Sendable (Int, Int) -> Void)?,
        _ report: inout FsckReport
    ) {
        let chosen = subset.map { subset in inventory.objects.filter { $0.key.withUnsafeBytes(subset.contains) } } ?? inventory.objects
        report.objectsChecked = chosen.count
        // The largest first, so that no thread reads a large one alone at the end.
        var chunks: [[ObjectID]] = []
        var room: UInt64 = 0
        for (id, size) in chosen.sorted(by: { ($0.value, $0.key) > ($1.value, $1.key) }) {
            if room < size || chunks.last.map({ $0.count >= Self.chunkObjects }) ?? true {
                chunks.append([])
                room = Self.chunkBytes
            }
            chunks[chunks.count - 1].append(id)
            room -= min(room, size)
        }
        let (done, next) = (Counter(), Counter())
        let total = chosen.count
        let all = chunks
        // One buffer and one hasher for all that a thread reads: new memory costs as much as reading a small object.
        let found = parallelMap(Array(0..<max(1, min(threads, all.count))), threads: threads, batch: 1) { _ in
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.readBytes, alignment: 4096)
            defer { buffer.deallocate() }
            var hasher = VerityHasher(self.algorithm)
            var faulty: [(id: ObjectID, problem: FsckProblem)] = []
            while case let index = next.value.add(1, ordering: .relaxed).oldValue, index < all.count {
                for id in all[index] {
                    if let problem = self.problem(ofObject: id, &hasher, buffer) { faulty.append((id, problem)) }
                }
                progress?(done.value.add(all[index].count, ordering: .relaxed).newValue, total)
            }
            return faulty
        }
        let faulty = found.flatMap(\.self).sorted { $0.id < $1.id }
        report.verified = VerifiedObjects(read: chosen, faulty: Set(faulty.map(\.id)))
        // An object gets fs-verity before its name, so no interruption leaves a named object without it.
        let torn = faulty.filter { $0.problem.kind != .objectOpenFailed && $0.problem.kind != .objectVerityMissing }
        let leftOver = leftOvers(torn.map(\.id), inventory)
        for (id, problem) in faulty {
            if leftOver.contains(id) {
                report.objectsChecked -= 1
                report.notes.append("\(problem.path) is incomplete, left by an interrupted pull; the next pull replaces or removes it")
                continue
            }
            report.objectsCorrupted += 1
            report.add(problem)
        }
    }

    private final class Counter: Sendable {
        let value = Atomic<Int>(0)
    }

    /// The damaged objects that an operation stored and did not sync, as its marker records, and to which nothing refers. They count as temporary
    /// files, not as damage.
    private func leftOvers(_ damaged: [ObjectID], _ inventory: Inventory) -> Set<ObjectID> {
        guard !damaged.isEmpty, let directories = try? entries(of: Layout.staging),
            let since = try? earliestMarker(in: directories.map({ Layout.staging + "/" + $0.name }))
        else { return [] }
        let recent = damaged.filter { id in
            guard let status = try? status(at: Layout.objectPath(id)) else { return false }
            return max(status.mtimeSeconds, status.ctimeSeconds) >= since.subtractingReportingOverflow(Self.clockMargin).partialValue
        }
        guard !recent.isEmpty else { return [] }
        return Set(recent).subtracting(ledTo(inventory))
    }

    /// Every object to which a readable stream or image refers.
    private func ledTo(_ inventory: Inventory) -> Set<ObjectID> {
        var found = Set(inventory.images.compactMap(\.id))
        for id in found { found.formUnion((try? imageObjects(id)) ?? []) }
        var walked: Set<ObjectID> = []
        var pending = inventory.streams.compactMap(\.id)
        while let id = pending.popLast() {
            found.insert(id)
            guard walked.insert(id).inserted, let stream = try? openStream(id, verify: false) else { continue }
            found.formUnion(stream.objectReferences)
            pending += stream.namedReferences.map(\.id)
        }
        return found
    }

    /// Reads a whole object. With fs-verity the kernel verifies every block meanwhile, and its digest is compared, too.
    private func problem(
        ofObject id: ObjectID, _ hasher: inout VerityHasher, _ buffer: UnsafeMutableRawBufferPointer
    ) -> FsckProblem? {
        let path = Layout.objectPath(id)
        do throws(RepositoryError) {
            var opened: FileStatus?
            let file = try Self.openForReading(id, at: path, in: root, status: &opened)
            if isSecure {
                guard let measured = try system({ () throws(SystemError) in try measuredVerity(file) }) else {
                    return FsckProblem(.objectVerityMissing, path)
                }
                guard measured == id else { return FsckProblem(.objectDigestMismatch, path, object: measured) }
            }
            do throws(SystemError) {
                let status = if let opened { opened } else { try file.status() }
                var offset: UInt64 = 0
                while true {
                    let count = try file.pread(into: buffer, at: offset)
                    guard count > 0 else { break }
                    hasher.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                    offset += UInt64(count)
                    // A file that becomes longer meanwhile is reported by the next check.
                    if count < buffer.count, offset >= status.size { break }
                }
                let actual = hasher.finalize()
                guard actual == id else { return FsckProblem(.objectDigestMismatch, path, object: actual) }
                if !isSecure { activity.intact.insert(id, status) }
                return nil
            } catch {
                // The bytes that were read of it must not count for the next object.
                _ = hasher.finalize()
                return FsckProblem(.objectVerityFailed, path, detail: "\(error)")
            }
        } catch {
            return FsckProblem(.objectOpenFailed, path, detail: Self.detail(error))
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

    private func problems(ofStream link: Inventory.Link, _ objects: [ObjectID: UInt64], verify: Bool) -> [FsckProblem] {
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
