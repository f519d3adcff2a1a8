package import ComposefsBytes
package import ComposefsConcurrency
package import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsSplitStream

/// What something keeps alive: names in `streams/`, with all that they lead to, and images with the objects of their files.
package struct AccountRoot: Sendable {
    package var streams: [ByteString]
    package var images: [ObjectID]

    package init(streams: [ByteString] = [], images: [ObjectID] = []) {
        self.streams = streams
        self.images = images
    }
}

/// The space of what one root keeps.
package struct RootAccount: Hashable, Sendable {
    /// All that it keeps; each object counts once.
    package var total = SpaceUse()
    /// What none of the other roots keeps, whatever the remaining references keep.
    package var exclusive = SpaceUse()
    /// What nothing else keeps.
    package var alone = SpaceUse()
}

/// Where a repository's space is.
package struct RepositoryAccounts: Sendable {
    /// All objects.
    package var objects = SpaceUse()
    /// The names in `streams/`, and the objects that they lead to, each once.
    package var streams = SpaceUse()
    /// The same for `images/`.
    package var images = SpaceUse()
    /// What operations that run now, or were cut short, have stored besides objects.
    package var temporaries = SpaceUse()
    /// Damaged files that were set aside.
    package var damaged = SpaceUse()
    /// In the order of the roots.
    package var roots: [RootAccount] = []
    /// What could not be read, and why; what it keeps is missing in the accounts.
    package var unreadable: [(name: ByteString, why: String)] = []
    /// What a garbage collection would remove; nil if it was not asked for, or would be refused.
    package var garbage: GarbageReport?
    /// The objects of `garbage`.
    package var garbageObjects = SpaceUse()
    /// Why a garbage collection would be refused.
    package var garbageFault: RepositoryError?
}

extension Repository {
    /// Adds up the space of objects by what keeps them. Each stream and each image is read once, each object's status once.
    ///
    /// Memory is needed for the identifiers of all objects and for four bytes for each reference of a stream. Streams are not verified: sizes
    /// alone depend on them.
    ///
    /// - Parameters:
    ///   - roots: what is accounted for. A name that does not exist keeps nothing.
    ///   - others: all other references.
    ///   - withGarbage: also plan a garbage collection.
    /// - Throws: `RepositoryError.cancelled`; `.system` if a directory cannot be listed.
    package func accounts(
        _ roots: [AccountRoot], others: AccountRoot, withGarbage: Bool = false, cancellation: Cancellation = Cancellation()
    ) throws(RepositoryError) -> RepositoryAccounts {
        var accountant = try Accountant(self, cancellation)
        for root in roots { try accountant.add(root) }
        try accountant.add(others)
        accountant.distribute()
        var result = accountant.result(rootCount: roots.count)
        try addRemains(to: &result)
        guard withGarbage else { return result }
        do throws(RepositoryError) {
            let (report, objects) = try planGarbage()
            result.garbage = report
            result.garbageObjects = accountant.space(of: objects)
        } catch {
            result.garbageFault = error
        }
        return result
    }

    private func addRemains(to accounts: inout RepositoryAccounts) throws(RepositoryError) {
        func space(_ path: ByteString) throws(RepositoryError) -> SpaceUse {
            guard let status = try status(at: path) else { return SpaceUse() }
            return SpaceUse(status)
        }
        for entry in try entries(of: ".") ?? [] where entry.name.hasPrefix(Layout.symlinkPrefix) {
            accounts.temporaries += try space(entry.name)
        }
        for entry in try entriesIfDirectory(Layout.objects) where entry.name.hasPrefix(Layout.objectPrefix) {
            accounts.temporaries += try space(Layout.objects + "/" + entry.name)
        }
        for (directory, isDamaged) in [(Layout.staging, false), (Layout.damaged, true)] {
            guard try status(at: directory)?.kind == .directory else { continue }
            var sum = SpaceUse()
            try walkReferences(directory) { (path, _) throws(RepositoryError) in sum += try space(path) }
            if isDamaged { accounts.damaged += sum } else { accounts.temporaries += sum }
        }
    }

    /// The entries of a directory; none if something else has its name.
    fileprivate func entriesIfDirectory(_ path: ByteString) throws(RepositoryError) -> [DirectoryEntry] {
        guard try status(at: path)?.kind == .directory else { return [] }
        return try entries(of: path) ?? []
    }
}

/// The pass over a repository.
private struct Accountant {
    /// A stream or an image that something leads to.
    private struct Node {
        /// Streams that it refers to.
        var children: [Int] = []
        /// All objects that it keeps, its own included.
        var objects: [UInt32] = []
        var keepers = KeeperSets.empty
        /// The root that came here last, counted from 1.
        var visitor: UInt32 = 0
    }

    private let repository: Repository
    private let cancellation: Cancellation
    private var indices: [ObjectID: UInt32] = [:]
    private var sizes: [SpaceUse] = []
    private var keepers: [UInt32] = []
    private var sets = KeeperSets()
    private var nodes: [Node] = []
    private var streamNodes: [ObjectID: Int] = [:]
    private var imageNodes: [ObjectID: Int] = [:]
    private var streamLinks: [ByteString: ObjectID] = [:]
    private var imageLinks: [ByteString: ObjectID] = [:]
    private var streamObjects: Set<ObjectID> = []
    private var rootCount: UInt32 = 0
    private var unreadable: [(name: ByteString, why: String)] = []

    init(_ repository: Repository, _ cancellation: Cancellation) throws(RepositoryError) {
        self.repository = repository
        self.cancellation = cancellation
        var (indices, sizes): ([ObjectID: UInt32], [SpaceUse]) = ([:], [])
        if try repository.status(at: Layout.objects)?.kind == .directory {
            try repository.forEachObject { (id, _, status) throws(RepositoryError) in
                guard let id, status.kind == .regular else { return }
                if sizes.count & 0xfff == 0, cancellation.isCancelled { throw .cancelled }
                indices[id] = UInt32(sizes.count)
                sizes.append(SpaceUse(status))
            }
        }
        self.indices = indices
        self.sizes = sizes
        keepers = Array(repeating: KeeperSets.empty, count: sizes.count)
        streamLinks = try Self.links(Layout.streams, repository)
        imageLinks = try Self.links(Layout.images, repository)
        streamObjects = Set(streamLinks.values)
    }

    private static func links(_ category: ByteString, _ repository: Repository) throws(RepositoryError) -> [ByteString: ObjectID] {
        var links: [ByteString: ObjectID] = [:]
        for entry in try repository.entriesIfDirectory(category) where entry.name != "refs" {
            let path = category + "/" + entry.name
            guard try repository.kind(of: entry, at: path) == .symbolicLink, let target = try repository.readLink(path),
                let id = Layout.objectID(ofTarget: target, repository.algorithm)
            else { continue }
            links[entry.name] = id
        }
        return links
    }

    // MARK: Roots

    /// Marks all streams and images that a root leads to.
    mutating func add(_ root: AccountRoot) throws(RepositoryError) {
        let number = rootCount
        rootCount += 1
        var pending: [Int] = []
        for name in root.streams {
            if let id = streamLinks[name], let node = try node(ofStream: id, name) { pending.append(node) }
        }
        for id in root.images {
            if let node = try node(ofImage: id) { pending.append(node) }
        }
        // A list instead of recursion: references may form chains of any length, and circles.
        while let next = pending.popLast() {
            guard nodes[next].visitor != number + 1 else { continue }
            nodes[next].visitor = number + 1
            nodes[next].keepers = sets.adding(number, to: nodes[next].keepers)
            pending += nodes[next].children
        }
    }

    private mutating func node(ofStream id: ObjectID, _ name: ByteString) throws(RepositoryError) -> Int? {
        if let known = streamNodes[id] { return known }
        guard let own = indices[id] else { return nil }
        guard !cancellation.isCancelled else { throw .cancelled }
        let first = nodes.count
        nodes.append(Node(objects: [own]))
        streamNodes[id] = first
        // Nodes are made before they are read, because references may form circles.
        var pending: [(node: Int, id: ObjectID, name: ByteString)] = [(first, id, name)]
        while let next = pending.popLast() {
            guard !cancellation.isCancelled else { throw .cancelled }
            let references: Repository.StreamReferences
            do throws(RepositoryError) {
                references = Repository.StreamReferences(try repository.openStream(next.id, verify: false))
            } catch {
                unreadable.append((Layout.streams + "/" + next.name, "\(error)"))
                continue
            }
            nodes[next.node].objects += references.objects.compactMap { indices[$0] }
            for reference in references.named {
                guard let index = indices[reference.id] else { continue }
                nodes[next.node].objects.append(index)
                if let known = streamNodes[reference.id] {
                    nodes[next.node].children.append(known)
                } else if streamObjects.contains(reference.id) || isStream(reference.id) {
                    let child = nodes.count
                    nodes.append(Node(objects: [index]))
                    streamNodes[reference.id] = child
                    nodes[next.node].children.append(child)
                    pending.append((child, reference.id, next.name + ", " + ByteString(reference.name)))
                }
            }
        }
        return first
    }

    private func isStream(_ id: ObjectID) -> Bool {
        do throws(RepositoryError) { return try repository.isStream(id) } catch { return false }
    }

    private mutating func node(ofImage id: ObjectID) throws(RepositoryError) -> Int? {
        if let known = imageNodes[id] { return known }
        guard let own = indices[id] else { return nil }
        guard !cancellation.isCancelled else { throw .cancelled }
        var node = Node(objects: [own])
        do throws(RepositoryError) {
            node.objects += try repository.imageObjects(id).compactMap { indices[$0] }
        } catch {
            unreadable.append((Layout.objectPath(id), "\(error)"))
        }
        imageNodes[id] = nodes.count
        nodes.append(node)
        return nodes.count - 1
    }

    // MARK: Sums

    /// Gives each object the keepers of all streams and images that need it.
    mutating func distribute() {
        for node in nodes.indices where nodes[node].keepers != KeeperSets.empty {
            let set = nodes[node].keepers
            for object in nodes[node].objects {
                let before = keepers[Int(object)]
                if before != set { keepers[Int(object)] = sets.union(before, set) }
            }
            nodes[node].objects = []
        }
    }

    /// - Parameter rootCount: the number of roots that have accounts; another one with all other references follows them.
    func result(rootCount: Int) -> RepositoryAccounts {
        var sums = [SpaceUse](repeating: SpaceUse(), count: sets.members.count)
        for object in sizes.indices { sums[Int(keepers[object])] += sizes[object] }
        var result = RepositoryAccounts()
        result.roots = Array(repeating: RootAccount(), count: rootCount)
        for (sum, members) in zip(sums, sets.members) {
            result.objects += sum
            guard sum.count > 0 else { continue }
            let accounted = members.filter { $0 < rootCount }
            for member in accounted { result.roots[Int(member)].total += sum }
            guard let only = accounted.first, accounted.count == 1 else { continue }
            result.roots[Int(only)].exclusive += sum
            if members.count == 1 { result.roots[Int(only)].alone += sum }
        }
        result.streams = space(of: Array(streamObjects))
        result.streams.count = streamLinks.count
        result.images = space(of: Array(Set(imageLinks.values)))
        result.images.count = imageLinks.count
        result.unreadable = unreadable
        return result
    }

    func space(of objects: [ObjectID]) -> SpaceUse {
        var sum = SpaceUse()
        for id in objects { if let index = indices[id] { sum += sizes[Int(index)] } }
        return sum
    }
}
