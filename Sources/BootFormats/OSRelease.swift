public import ComposefsBytes

/// The contents of os-release(5).
///
/// The file is a list of shell assignments. A later assignment to a key wins. A value whose quotes are not closed is ignored, so that a damaged
/// line does not hide the others.
public struct OSRelease: Sendable, Equatable {
    public private(set) var values: [ByteString: ByteString] = [:]

    public init(parsing text: some Sequence<UInt8>) {
        for line in Array(text).split(separator: UInt8(ascii: "\n")) {
            let line = trimmingASCIISpace(line)
            guard line.first != UInt8(ascii: "#"), let equals = line.firstIndex(of: UInt8(ascii: "=")) else { continue }
            let key = ByteString(line[..<equals])
            values[key] = Self.unquoted(line[(equals + 1)...]) ?? values[key]
        }
    }

    public subscript(key: ByteString) -> ByteString? { values[key].flatMap { $0.isEmpty ? nil : $0 } }

    /// `PRETTY_NAME`, else `NAME`, else `ID`.
    public var name: ByteString? { self["PRETTY_NAME"] ?? self["NAME"] ?? self["ID"] }
    /// `VERSION_ID`, else `VERSION`.
    public var version: ByteString? { self["VERSION_ID"] ?? self["VERSION"] }
    /// The name and the version, for the menu of a boot loader. Nil without a name.
    public var label: ByteString? { name.map { name in version.map { name + " " + $0 } ?? name } }

    /// The value of an assignment as a shell reads it: double quotes with backslash escapes, single quotes without, both in any number and next
    /// to unquoted text. Nil if a quote is not closed.
    ///
    /// A backslash outside of quotes is kept: os-release(5) wants quotes if a shell would interpret one.
    static func unquoted(_ text: some Collection<UInt8>) -> ByteString? {
        var value: [UInt8] = []
        var quote: UInt8?
        var rest = Array(text)[...]
        while let byte = rest.popFirst() {
            if byte == quote {
                quote = nil
            } else if quote == nil, byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") {
                quote = byte
            } else if quote == UInt8(ascii: "\""), byte == UInt8(ascii: "\\") {
                guard let escaped = rest.popFirst() else { return nil }
                value.append(escaped)
            } else {
                value.append(byte)
            }
        }
        return quote == nil ? ByteString(value) : nil
    }
}
