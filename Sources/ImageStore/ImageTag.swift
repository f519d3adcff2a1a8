public import ComposefsBytes
import ComposefsRepository

/// Tags are references below `streams/refs/oci/`; the name is encoded into one path component.
public enum ImageTag {
    package static let directory: ByteString = "oci"
    /// Where tags are below `streams/refs/`.
    public static let prefix: ByteString = "oci/"

    /// `%` becomes `%25`, `/` becomes `%2F`; nothing else changes.
    public static func encode(_ name: ByteString) -> ByteString { Repository.component(encoding: name) }

    /// Reverses `encode` in one pass. A `%` that begins neither `%25` nor `%2F` is kept.
    public static func decode(_ component: ByteString) -> ByteString {
        var name: [UInt8] = []
        var rest = component.bytes[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.starts(with: "2F".utf8) {
                name.append(UInt8(ascii: "/"))
                rest = rest.dropFirst(2)
            } else if byte == UInt8(ascii: "%"), rest.starts(with: "25".utf8) {
                name.append(UInt8(ascii: "%"))
                rest = rest.dropFirst(2)
            } else {
                name.append(byte)
            }
        }
        return ByteString(name)
    }

    /// The longest file name that Linux allows, in bytes (NAME_MAX).
    private static let nameLimit = 255

    /// Refuses a name that cannot be a tag.
    ///
    /// - Throws: `ImageStoreError.invalidTag`: empty, beginning with `@`, `.` or `..`, a control byte, or over 255 bytes encoded.
    public static func check(_ name: ByteString) throws(ImageStoreError) {
        let fault: TagFault? =
            if name.isEmpty {
                .empty
            } else if name.bytes.first == UInt8(ascii: "@") {
                .leadingAt
            } else if name == "." || name == ".." {
                .dots
            } else if name.bytes.contains(where: { $0 < 0x20 || $0 == 0x7f }) {
                .controlCharacter
            } else if encode(name).count > nameLimit {
                .tooLong(limit: nameLimit)
            } else {
                nil
            }
        if let fault { throw .invalidTag(name, fault) }
    }

    package static func referencePath(_ name: ByteString) -> ByteString { prefix + encode(name) }
}
