internal import ComposefsBytes
internal import ComposefsConcurrency
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsSplitStream
internal import Synchronization

/// The objects that a check reads.
enum CheckedObjects: Sendable {
    case all
    case part(CheckSubset)
    case none

    func contains(_ id: ObjectID) -> Bool {
        switch self {
        case .all: true
        case .part(let subset): id.withUnsafeBytes(subset.contains)
        case .none: false
        }
    }
}

// The check opens each object once, by its name in its directory, and takes its size from the open file: at 15 KB an object, each call less for an
// object is felt. Streams and images can be checked when all sizes are known; they and the large objects, which are few, are distributed to the
// threads last, so that none works alone at the end.

extension Repository {
    /// The objects of a directory that a thread reads without looking at the others.
    private static let smallBytes: UInt64 = 64 << 10
    /// The bytes of large objects that a thread takes at once.
    private static let chunkBytes: UInt64 = 4 << 20
    /// What is read of an object at a time: it stays in the processor's cache until it is hashed. Bytes.
    private static let readBytes = 256 << 10

    /// Checks the objects, and fills in the inventory's, then checks the entries of `streams/` and `images/`.
    ///
    /// - Returns: the faults of the streams and of the images, one list for each entry of the inventory.
    func checkObjectsAndLinks(
        _ inventory: inout Inventory, _ chosen: CheckedObjects, _ threads: Int, _ progress: (@Sendable (Int, Int) -> Void)?,
        _ report: inout FsckReport
    ) throws(RepositoryError) -> (streams: [[FsckProblem]], images: [[FsckProblem]]) {
        let directories = try objectNames(chosen, threads, &inventory)
        let reading = Reading(total: directories.reduce(0) { $0 + $1.chosen }, progress)
        var findings = ObjectFindings()
        let small = parallelMap(directories, threads: threads, batch: 1) { directory -> Result<ObjectFindings, RepositoryError> in
            do throws(RepositoryError) {
                return .success(try self.check(directory, chosen, reading))
            } catch {
                return .failure(error)
            }
        }
        var sizes: [ObjectID: UInt64] = [:]
        sizes.reserveCapacity(directories.reduce(0) { $0 + $1.ids.count })
        for result in small {
            let found = try result.get()
            for (id, size) in found.sizes { sizes[id] = size }
            inventory.strays += found.strays
            findings.faulty += found.faulty
            findings.large += found.large
            findings.vanished += found.vanished
        }
        inventory.objects = sizes
        let links = checkLinksAndLarge(inventory, &findings, chosen, threads, reading)
        report.objectsChecked += reading.total - findings.vanished
        add(findings.faulty.sorted { $0.id < $1.id }, inventory, chosen, &report)
        return links
    }

    /// The objects that were read, and how many there are.
    private final class Reading: Sendable {
        let total: Int
        private let done = Atomic<Int>(0)
        private let progress: (@Sendable (Int, Int) -> Void)?

        init(total: Int, _ progress: (@Sendable (Int, Int) -> Void)?) { (self.total, self.progress) = (total, progress) }

        func add(_ count: Int) {
            guard count > 0, let progress else { return }
            progress(done.add(count, ordering: .relaxed).newValue, total)
        }
    }

    private struct ObjectFindings: Sendable {
        var sizes: [(id: ObjectID, size: UInt64)] = []
        var strays: [(path: ByteString, kind: FileKind)] = []
        var faulty: [(id: ObjectID, problem: FsckProblem)] = []
        var large: [(id: ObjectID, size: UInt64)] = []
        /// Objects that another process has removed since they were listed.
        var vanished = 0
    }

    // MARK: Listing

    /// One of the 256 directories.
    private struct ObjectDirectory: Sendable {
        var path: ByteString
        var ids: [ObjectID] = []
        /// How many of them the check reads.
        var chosen = 0
        var strays: [(path: ByteString, kind: FileKind)] = []
    }

    private func objectNames(
        _ chosen: CheckedObjects, _ threads: Int, _ inventory: inout Inventory
    ) throws(RepositoryError) -> [ObjectDirectory] {
        // What has its place is reported with the other directories.
        guard try status(at: Layout.objects)?.kind == .directory else { return [] }
        let present = try Self.objectDirectories(in: root)
        let listed = parallelMap(present, threads: threads, batch: 4) { index -> Result<ObjectDirectory, RepositoryError> in
            do throws(RepositoryError) { return .success(try self.objectNames(index, chosen)) } catch { return .failure(error) }
        }
        var directories: [ObjectDirectory] = []
        for result in listed {
            let directory = try result.get()
            inventory.strays += directory.strays
            if !directory.ids.isEmpty { directories.append(directory) }
        }
        return directories
    }

    private func objectNames(_ index: UInt8, _ chosen: CheckedObjects) throws(RepositoryError) -> ObjectDirectory {
        var found = ObjectDirectory(path: Self.objectDirectory(index))
        for entry in try entries(of: found.path) ?? [] {
            var kind = entry.kind
            if kind == .unknown {
                // Another process may have removed it meanwhile.
                guard let status = try status(at: found.path + "/" + entry.name) else { continue }
                kind = status.kind
            }
            if kind == .regular, let id = Layout.objectID(first: index, rest: entry.name, algorithm) {
                found.ids.append(id)
                if chosen.contains(id) { found.chosen += 1 }
            } else {
                found.strays.append((found.path + "/" + entry.name, kind))
            }
        }
        found.strays.sort { $0.path < $1.path }
        return found
    }

    // MARK: Reading

    private func check(
        _ list: ObjectDirectory, _ chosen: CheckedObjects, _ reading: Reading
    ) throws(RepositoryError) -> ObjectFindings {
        var found = ObjectFindings()
        found.sizes.reserveCapacity(list.ids.count)
        let directory = try system { () throws(SystemError) in try root.directory(at: list.path) }
        let reader = ObjectCheck(self)
        var read = 0
        for id in list.ids {
            let path = Layout.objectPath(id)
            let name = ByteString(path.bytes[(list.path.count + 1)...])
            let isChosen = chosen.contains(id)
            var opened: FileStatus?
            var problem: FsckProblem?
            if isChosen { problem = reader.check(id, name, in: directory, &opened, limit: Self.smallBytes) }
            if opened == nil {
                opened = try system { () throws(SystemError) in try directory.statusIfPresent(at: name) }
            }
            guard let status = opened, status.kind == .regular else {
                if isChosen { found.vanished += 1 }
                if let kind = opened?.kind { found.strays.append((path, kind)) }
                continue
            }
            found.sizes.append((id, status.size))
            guard isChosen else { continue }
            if problem == nil, status.size > Self.smallBytes {
                found.large.append((id, status.size))
                continue
            }
            if let problem { found.faulty.append((id, problem)) }
            read += 1
            if read == 64 {
                reading.add(read)
                read = 0
            }
        }
        reading.add(read)
        return found
    }

    /// What a thread checks after all sizes are known.
    private enum Task: Sendable {
        case stream(Int)
        case image(Int)
        case objects([ObjectID])
    }

    private enum TaskResult: Sendable {
        case link([FsckProblem])
        case objects([(id: ObjectID, problem: FsckProblem)])
    }

    private func checkLinksAndLarge(
        _ inventory: Inventory, _ findings: inout ObjectFindings, _ chosen: CheckedObjects, _ threads: Int, _ reading: Reading
    ) -> (streams: [[FsckProblem]], images: [[FsckProblem]]) {
        // A byte of an image takes longer than one that is only hashed; how much does not matter.
        var tasks: [(task: Task, cost: UInt64)] = []
        for (index, link) in inventory.streams.enumerated() {
            tasks.append((.stream(index), (link.id.flatMap { inventory.objects[$0] } ?? 0).multipliedReportingOverflow(by: 4).partialValue))
        }
        for (index, link) in inventory.images.enumerated() {
            tasks.append((.image(index), (link.id.flatMap { inventory.objects[$0] } ?? 0).multipliedReportingOverflow(by: 16).partialValue))
        }
        tasks += Self.chunks(of: findings.large)
        tasks.sort { $0.cost > $1.cost }
        let objects = inventory.objects
        // The objects that are read whole need not be verified again.
        let verifiesStreams = if case .all = chosen { false } else { true }
        let results = parallelMap(tasks.map(\.task), threads: threads, batch: 1) { task -> TaskResult in
            switch task {
            case .stream(let index): return .link(self.problems(ofStream: inventory.streams[index], objects, verify: verifiesStreams))
            case .image(let index): return .link(self.problems(ofImage: inventory.images[index], objects))
            case .objects(let ids):
                let reader = ObjectCheck(self)
                var faulty: [(id: ObjectID, problem: FsckProblem)] = []
                for id in ids {
                    var opened: FileStatus?
                    if let problem = reader.check(id, Layout.objectPath(id), in: self.root, &opened) { faulty.append((id, problem)) }
                }
                reading.add(ids.count)
                return .objects(faulty)
            }
        }
        var streams = [[FsckProblem]](repeating: [], count: inventory.streams.count)
        var images = [[FsckProblem]](repeating: [], count: inventory.images.count)
        for (task, result) in zip(tasks, results) {
            switch (task.task, result) {
            case (.stream(let index), .link(let problems)): streams[index] = problems
            case (.image(let index), .link(let problems)): images[index] = problems
            case (_, .objects(let faulty)): findings.faulty += faulty
            default: preconditionFailure("a task's result is of another kind")
            }
        }
        return (streams, images)
    }

    private static func chunks(of large: [(id: ObjectID, size: UInt64)]) -> [(Task, UInt64)] {
        var chunks: [(ids: [ObjectID], size: UInt64)] = []
        for (id, size) in large.sorted(by: { ($0.size, $0.id) > ($1.size, $1.id) }) {
            if let last = chunks.last, last.size < chunkBytes, size <= chunkBytes - last.size {
                chunks[chunks.count - 1].ids.append(id)
                chunks[chunks.count - 1].size += size
            } else {
                chunks.append(([id], size))
            }
        }
        return chunks.map { (.objects($0.ids), $0.size) }
    }

    /// Reads objects one after the other: one buffer and one hasher for all, because new memory costs as much as reading a small object.
    private final class ObjectCheck {
        private let repository: Repository
        private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Repository.readBytes, alignment: 4096)
        private var hasher: VerityHasher

        init(_ repository: Repository) {
            self.repository = repository
            hasher = VerityHasher(repository.algorithm)
        }

        deinit { buffer.deallocate() }

        /// Reads a whole object. With fs-verity the kernel verifies every block meanwhile, and its digest is compared, too.
        ///
        /// - Parameters:
        ///   - name: the path of its file in `directory`.
        ///   - opened: the status of the open file.
        ///   - limit: do not read a file of more bytes.
        func check(
            _ id: ObjectID, _ name: ByteString, in directory: borrowing RootedDirectory, _ opened: inout FileStatus?, limit: UInt64 = .max
        ) -> FsckProblem? {
            do throws(RepositoryError) {
                let file = try Repository.openForReading(id, at: name, in: directory, status: &opened)
                guard let status = opened, status.size <= limit else { return nil }
                if repository.isSecure {
                    guard let measured = try system({ () throws(SystemError) in try measuredVerity(file) }) else {
                        return FsckProblem(.objectVerityMissing, Layout.objectPath(id))
                    }
                    guard measured == id else { return FsckProblem(.objectDigestMismatch, Layout.objectPath(id), object: measured) }
                }
                do throws(SystemError) {
                    let actual = try read(file, status.size)
                    return actual == id ? nil : FsckProblem(.objectDigestMismatch, Layout.objectPath(id), object: actual)
                } catch {
                    // The bytes that were read of it must not count for the next object.
                    _ = hasher.finalize()
                    return FsckProblem(.objectVerityFailed, Layout.objectPath(id), detail: "\(error)")
                }
            } catch {
                return FsckProblem(.objectOpenFailed, Layout.objectPath(id), detail: Repository.detail(error))
            }
        }

        private func read(_ file: borrowing FileDescriptor, _ size: UInt64) throws(SystemError) -> ObjectID {
            var parts = FileParts(into: buffer)
            while let part = try parts.next(of: file) {
                hasher.update(part)
                // A file that becomes longer meanwhile is reported by the next check.
                if part.count < buffer.count, parts.offset >= size { break }
            }
            return hasher.finalize()
        }
    }

    // MARK: Faults

    private func add(
        _ faulty: [(id: ObjectID, problem: FsckProblem)], _ inventory: Inventory, _ chosen: CheckedObjects, _ report: inout FsckReport
    ) {
        report.verified = VerifiedObjects(all: inventory.objects, read: chosen, faulty: Set(faulty.map(\.id)))
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
}
