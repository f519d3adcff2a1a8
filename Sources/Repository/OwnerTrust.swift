internal import ComposefsBytes
package import ComposefsLinuxSystem
internal import Synchronization

// Whose a repository is.
//
// Reading needs no trust: paths do not leave the repository, and content is verified. Writing does. What another user can change between
// two calls, or has put there before, would decide what is kept, removed and believed by a process that may have more rights. So before the
// first change a handle looks at every directory that it may write in, and at `meta.json`.
extension Repository {
    /// Throws `.untrusted` if another user owns, or can write to, `meta.json` or a directory of the repository; `.notDirectory` if
    /// something else has a directory's place. Looks once for each handle.
    package func requireTrustedOwner() throws(RepositoryError) {
        guard !activity.hasTrustedOwner.load(ordering: .acquiring) else { return }
        try Self.requireTrustedOwner(root, path, options)
        activity.hasTrustedOwner.store(true, ordering: .releasing)
    }

    static func requireTrustedOwner(
        _ root: borrowing RootedDirectory, _ path: ByteString, _ options: OpenOptions
    ) throws(RepositoryError) {
        let check = options.trustsOwner ? nil : OwnershipCheck()
        func look(at name: ByteString, _ file: borrowing FileDescriptor) throws(RepositoryError) {
            guard let fault = try system({ () throws(SystemError) in try check?.fault(of: file) }) else { return }
            throw .untrusted(name.isEmpty ? path : path + "/" + name, fault)
        }
        func directory(_ name: ByteString) throws(RepositoryError) -> Bool {
            // A handle, so that a link in its place is seen and not followed.
            let opened = try system { () throws(SystemError) in try root.openIfPresent(at: name, [.pathOnly, .noFollow]) }
            guard let handle = opened else { return false }
            let kind = try system { () throws(SystemError) in try handle.status().kind }
            guard kind == .directory else { throw .notDirectory(path + "/" + name) }
            try look(at: name, handle)
            return true
        }
        try look(at: "", root.descriptor)
        let metadata = try system { () throws(SystemError) in try root.openIfPresent(at: Layout.metadata, [.pathOnly, .noFollow]) }
        if let metadata { try look(at: Layout.metadata, metadata) }
        for name in [Layout.streams, Layout.images, Layout.damaged] { _ = try directory(name) }
        // A list instead of recursion: depth is bounded by the longest path only.
        var pending = [Layout.objects, Layout.streamReferences, Layout.imageReferences, Layout.staging]
        while let next = pending.popLast() {
            guard try directory(next) else { continue }
            for entry in try entries(of: next, in: root) ?? [] {
                let name = next + "/" + entry.name
                switch entry.kind {
                case .directory: if next != Layout.objects || entry.name.count == 2 { pending.append(name) }
                // An object's directory that is a link would be met only when an object is stored.
                case .symbolicLink where next == Layout.objects && entry.name.count == 2: throw .notDirectory(path + "/" + name)
                case .unknown:
                    let status = try system { () throws(SystemError) in try root.statusIfPresent(at: name) }
                    if status?.kind == .directory { pending.append(name) }
                default: break
                }
            }
        }
    }

    /// Whether an object of a repository without fs-verity could be changed by another user, whatever its content is now.
    func isForeign(_ status: FileStatus) -> Bool { !options.trustsOwner && activity.ownership.fault(of: status) != nil }

    /// The directory of objects, open, for the kernel to read from.
    package func openObjectsDirectory() throws(RepositoryError) -> FileDescriptor {
        try system { () throws(SystemError) in try root.open(at: Layout.objects, [.readOnly, .directory]) }
    }
}
