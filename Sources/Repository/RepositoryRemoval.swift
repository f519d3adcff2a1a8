package import ComposefsBytes
internal import ComposefsLinuxSystem

extension Repository {
    /// Removes everything in the repository that this handle made, unless another handle is open, or a stream, an image or a name exists. The directory itself
    /// stays. The handle must not be used any more.
    ///
    /// - Parameter keepsContent: whether a repository that holds objects or partial blobs stays: a repeated operation continues from them.
    /// - Returns: whether it was removed.
    package func removeUnused(keepsContent: Bool) throws(RepositoryError) -> Bool {
        guard try system({ () throws(SystemError) in try root.lock(.exclusive, wait: false) }) else { return false }
        for references in [Layout.streamReferences, Layout.imageReferences] {
            guard try entries(of: references)?.isEmpty ?? true else { return false }
        }
        // Another handle may have stored a layer or an image without a name since.
        for links in [Layout.streams, Layout.images] {
            guard try entries(of: links)?.allSatisfy({ $0.name == "refs" }) ?? true else { return false }
        }
        let known = [Layout.objects, Layout.streams, Layout.images, Layout.staging, Layout.damaged, Layout.leases]
        if keepsContent {
            for name in [Layout.objects, Layout.staging] {
                guard try entries(of: name)?.isEmpty ?? true else { return false }
            }
        }
        // While there is `meta.json`, what is left is still a repository, and is removed by a collection.
        for name in known { try Self.removeTree(name, in: root) }
        try system { () throws(SystemError) in
            if try root.statusIfPresent(at: Layout.metadata) != nil { try root.unlink(at: Layout.metadata) }
        }
        return true
    }

    /// Whether a directory has entries and nothing in it looks like a part of a repository.
    ///
    /// - Returns: the name of an entry that is foreign; nil if the directory is missing, empty, or a repository, or one that was interrupted.
    package static func foreignEntry(of path: ByteString) throws(RepositoryError) -> ByteString? {
        // A directory that cannot be opened is reported by the attempt to make the repository there.
        guard let directory = try? FileDescriptor.open(path, [.readOnly, .directory]) else { return nil }
        let names = try system { () throws(SystemError) in try directory.entries() }.map(\.name).sorted()
        if names.contains(Layout.metadata) || names.contains(Layout.objects) { return nil }
        // ext4 has lost+found at its root.
        let own = [Layout.streams, Layout.images, Layout.staging, Layout.damaged, Layout.leases, "lost+found"]
        return names.first { name in
            !own.contains(name) && !name.hasPrefix(Layout.symlinkPrefix) && !name.hasPrefix(Layout.objectPrefix)
        }
    }
}
