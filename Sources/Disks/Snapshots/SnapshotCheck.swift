public import ComposefsBytes
import ComposefsHashing
import ComposefsRepository
import ComposefsSnapshotFormat

/// The result of a check of the snapshots.
public struct SnapshotCheckReport: Sendable {
    /// A fault of a snapshot.
    public struct Problem: Sendable, Hashable, CustomStringConvertible {
        /// The name, or the identity of one without a name.
        public var snapshot: ByteString
        public var detail: String

        public var description: String { "fsck: snapshot-damaged: \(snapshot): \(detail)" }
    }

    /// The number of snapshots; one with two names counts once.
    public var checked = 0
    public var problems: [Problem] = []
    /// The number of snapshots with faults.
    public var damaged: Int { Set(problems.map(\.snapshot)).count }

    /// Whether there is no fault.
    public var isClean: Bool { problems.isEmpty }

    public init() {}
}

extension SnapshotStore {
    /// Checks all snapshots, also those that only others keep as their parents: that descriptors match their identities, that sizes and digests agree,
    /// and that references to parents lead to them. `Repository.check` reads the objects.
    ///
    /// - Parameter deep: also read the content, and compare its digest with the descriptor.
    /// - Throws: `RepositoryError` if a directory cannot be listed; faults are in the report.
    public func check(deep: Bool = false) throws -> SnapshotCheckReport {
        var report = SnapshotCheckReport()
        var names: [ContentDigest: ByteString] = [:]
        for reference in try repository.streamReferences(under: SnapshotNames.references) {
            if let identity = SnapshotNames.identity(of: reference.entry) {
                names[identity] = reference.name
            } else {
                report.problems.append(.init(snapshot: reference.name, detail: "leads to \(reference.target), which is no snapshot"))
            }
        }
        for stream in try repository.streamNames() where stream.hasPrefix(SnapshotNames.descriptorPrefix) {
            report.checked += 1
            let identity = SnapshotNames.identity(of: stream)
            let name = identity.flatMap { names[$0] ?? ByteString($0.description) } ?? stream
            do {
                guard let identity else { throw SnapshotFault.unreadable("its name has no SHA-256 digest") }
                try check(identity, deep: deep)
            } catch let error as SnapshotError {
                var detail = "\(error)"
                if case .damaged(_, let fault) = error { detail = "\(fault)" }
                report.problems.append(.init(snapshot: name, detail: detail))
            } catch {
                report.problems.append(.init(snapshot: name, detail: "\(error)"))
            }
        }
        return report
    }

    private func check(_ identity: ContentDigest, deep: Bool) throws {
        let snapshot = try open(ByteString(identity.description))
        if let parent = snapshot.parentStream, let expected = snapshot.descriptor.parent {
            guard let found = try? repository.snapshot(parent, expected: expected), found.identity == expected else {
                throw SnapshotFault.parent(expected)
            }
        }
        if deep {
            _ = try verify(snapshot)
        } else {
            try checkContent(of: snapshot)
        }
    }
    /// Links that a check misses: those to the contents of intact snapshots.
    ///
    /// - Returns: the name of each, and the object that it leads to.
    private func missingLinks() throws -> [(name: ByteString, content: ObjectID)] {
        try repository.streamNames().filter { $0.hasPrefix(SnapshotNames.descriptorPrefix) }.compactMap { stream in
            // What cannot be read is damaged, and no link mends it.
            guard let identity = SnapshotNames.identity(of: stream), let snapshot = try? open(ByteString(identity.description)),
                case .merkle(let root)? = snapshot.descriptor.integrity
            else { return nil }
            let name = SnapshotNames.upperStream(root)
            guard try repository.stream(name) != snapshot.upper, (try? content(of: snapshot).root()) == root else { return nil }
            return (name, snapshot.upper)
        }
    }

    /// Writes links again that a check misses.
    ///
    /// - Parameter isDryRun: only report which ones.
    /// - Returns: the path of each link in the repository, and that of the object.
    package func restoreLinks(isDryRun: Bool) throws -> [(path: ByteString, target: ByteString)] {
        let missing = try missingLinks()
        if !isDryRun, !missing.isEmpty {
            var publication = Repository.Publication()
            for link in missing { publication.stream(link.name, link.content) }
            try repository.publish(publication)
        }
        return missing.map { ("streams/" + $0.name, "objects/" + ByteString($0.content.objectPath)) }
    }
}
