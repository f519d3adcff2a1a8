package import ComposefsBytes
package import ComposefsFileTree
internal import ComposefsLinuxSystem

// When names were used last. The modification time of a reference's link tells it: the link appears when an image gets the name, and each use
// sets its time. So a name that moves is new, a removed name leaves nothing behind, and copies that keep times keep it. The times are not
// synced: a power cut may lose the uses of the last seconds.
extension Repository {
    /// Records that names were used now, as far as this handle may write; a failure has no consequence.
    ///
    /// - Parameters:
    ///   - streams: references below `streams/refs`.
    ///   - images: references below `images/refs`.
    package func noteUse(streams: [ByteString] = [], images: [ByteString] = []) {
        guard !(streams.isEmpty && images.isEmpty), (try? requireWritable()) != nil else { return }
        let now = Host.currentTime()
        for path in streams.map({ Layout.streamReferences + "/" + $0 }) + images.map({ Layout.imageReferences + "/" + $0 }) {
            // What is no link is no name.
            guard let kind = try? root.statusIfPresent(at: path)?.kind, kind == .symbolicLink else { continue }
            try? root.setTime(at: path, seconds: now.seconds, nanoseconds: now.nanoseconds)
        }
    }

    /// When a reference below `streams/refs` was used last; nil if there is none, or its link has no time.
    package func lastUse(ofStream reference: ByteString) throws(RepositoryError) -> Timestamp? {
        try linkTime(Layout.streamReferences + "/" + reference)
    }

    /// The same for a reference below `images/refs`.
    package func lastUse(ofImage reference: ByteString) throws(RepositoryError) -> Timestamp? {
        try linkTime(Layout.imageReferences + "/" + reference)
    }

    /// When a stream got its name; nil as above.
    package func streamTime(_ name: ByteString) throws(RepositoryError) -> Timestamp? { try linkTime(Layout.streams + "/" + name) }

    /// When an image got its name in `images/`; nil as above.
    package func imageTime(_ name: ByteString) throws(RepositoryError) -> Timestamp? { try linkTime(Layout.images + "/" + name) }

    /// Trees that were made reproducibly have the same time everywhere, usually that of the epoch: it tells nothing.
    private func linkTime(_ path: ByteString) throws(RepositoryError) -> Timestamp? {
        guard let status = try status(at: path), status.kind == .symbolicLink, status.mtimeSeconds > 0 else { return nil }
        return Timestamp(seconds: status.mtimeSeconds, nanoseconds: status.mtimeNanoseconds)
    }
}
