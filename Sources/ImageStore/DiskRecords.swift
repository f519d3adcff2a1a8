package import ComposefsBytes
package import ComposefsHashing

/// References that record what belongs to an image: `DIRECTORY/SUBJECT/NAME` below `streams/refs/`, with the digest of the image's manifest as
/// SUBJECT. Such a reference keeps what it leads to, and is removed with the image.
package enum SubjectRecord {
    /// Whether a reference records a referrer or a disk.
    package static func isRecord(_ name: ByteString) -> Bool {
        name.hasPrefix(ReferrerRecord.prefix) || name.hasPrefix(DiskRecord.prefix)
    }

    /// The digest of the manifest, and the last component of a reference; nil if the name is not of this form.
    package static func parse(_ name: ByteString) -> (subject: ContentDigest, name: ByteString)? {
        let parts = name.bytes.split(separator: UInt8(ascii: "/"))
        guard parts.count == 3, let subject = ByteString(Array(parts[1])).utf8Text.flatMap({ ContentDigest($0) }) else { return nil }
        return (subject, ByteString(Array(parts[2])))
    }
}

/// Where records of disks are below `streams/refs/`: `oci-disks/SUBJECT/KEY`, which leads to the stream `oci-disk-KEY-CHAINID`. The key says what
/// kind of disk it is, and with which options it was made.
package enum DiskRecord {
    package static let directory: ByteString = "oci-disks"
    package static let prefix: ByteString = "oci-disks/"
    package static let streamPrefix: ByteString = "oci-disk-"

    package static func path(_ subject: ContentDigest, _ key: ByteString) -> ByteString {
        directory(of: subject) + "/" + key
    }

    /// The directory of the disks of an image.
    package static func directory(of subject: ContentDigest) -> ByteString { prefix + ByteString(subject.description) }

    package static func stream(_ key: ByteString, _ chainID: ContentDigest) -> ByteString {
        streamPrefix + key + "-" + ByteString(chainID.description)
    }

    /// The key and chain ID in the name of a disk's stream; nil if it is none.
    package static func parse(stream name: ByteString) -> (key: ByteString, chainID: ContentDigest)? {
        guard name.hasPrefix(streamPrefix), let end = name.bytes.lastIndex(of: UInt8(ascii: "-")), end > streamPrefix.count,
            let chainID = ByteString(Array(name.bytes[(end + 1)...])).utf8Text.flatMap({ ContentDigest($0) })
        else { return nil }
        return (ByteString(Array(name.bytes[streamPrefix.count..<end])), chainID)
    }
}

extension ContentDigest {
    /// The chain ID of each layer of a stack, which identifies the layer together with all below it (OCI image specification, config.md, "Layer
    /// ChainID").
    package static func chainIDs(of diffIDs: [ContentDigest]) -> [ContentDigest] {
        var chain: [ContentDigest] = []
        for diffID in diffIDs {
            chain.append(chain.last.map { ContentDigest.of(Array("\($0) \(diffID)".utf8)) } ?? diffID)
        }
        return chain
    }

    /// The chain ID of a whole stack; for an image without layers, the digest of nothing.
    package static func chainID(of diffIDs: [ContentDigest]) -> ContentDigest { chainIDs(of: diffIDs).last ?? ContentDigest.of([]) }
}
