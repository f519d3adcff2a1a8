internal import ComposefsBytes
package import ComposefsLinuxSystem
internal import Synchronization

// The owner of a repository.
//
// Reading needs no trust: paths do not leave the repository, and content is verified. Writing does. Another user that can change an entry
// between two calls, or has prepared one, would decide what a process with more rights keeps, removes and relies on. So before its first
// change a handle examines every directory that it may write to, and `meta.json`.
extension Repository {
    /// Throws `.untrusted` if another user owns, or can write to, `meta.json` or a directory of the repository; `.notDirectory` if another
    /// file has the name of a directory. Examines them once for each handle.
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
            // A handle, so that a symbolic link is seen and not followed.
            let opened = try system { () throws(SystemError) in try root.openIfPresent(at: name, [.pathOnly, .noFollow]) }
            guard let handle = opened else { return false }
            let kind = try system { () throws(SystemError) in try handle.status().kind }
            guard kind == .directory else { throw .notDirectory(path + "/" + name) }
            try look(at: name, handle)
            return true
        }
        try look(at: "", root.descriptor)
        let metadata = try system { () throws(SystemError) in try root.openIfPresent(at: Layout.metadata, [.pathOnly, .noFollow]) }
        // A symbolic link has no permissions, and none is followed.
        if let metadata, try system({ () throws(SystemError) in try metadata.status().kind }) != .symbolicLink {
            try look(at: Layout.metadata, metadata)
        }
        for name in [Layout.streams, Layout.images, Layout.damaged] { _ = try directory(name) }
        // A list instead of recursion: depth is bounded by the longest path only.
        var pending = [Layout.objects, Layout.streamReferences, Layout.imageReferences, Layout.staging, Layout.leases]
        while let next = pending.popLast() {
            guard try directory(next) else { continue }
            for entry in try entries(of: next, in: root) ?? [] {
                let name = next + "/" + entry.name
                switch entry.kind {
                case .directory: if next != Layout.objects || entry.name.count == 2 { pending.append(name) }
                // Without this check, a symbolic link in place of an object directory would be found only when an object is stored.
                case .symbolicLink where next == Layout.objects && entry.name.count == 2: throw .notDirectory(path + "/" + name)
                case .unknown:
                    let status = try system { () throws(SystemError) in try root.statusIfPresent(at: name) }
                    if status?.kind == .directory { pending.append(name) }
                default: break
                }
            }
        }
    }

    /// Whether another user could change an object of a repository without fs-verity, whatever its content is now.
    func isForeign(_ status: FileStatus) -> Bool { !options.trustsOwner && activity.ownership.fault(of: status) != nil }

    /// The directory of objects, open, for the kernel to read from.
    package func openObjectsDirectory() throws(RepositoryError) -> FileDescriptor {
        try system { () throws(SystemError) in try root.open(at: Layout.objects, [.readOnly, .directory]) }
    }
}
