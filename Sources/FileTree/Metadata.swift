public import ComposefsBytes

/// A point in time as file systems store it, rounded down: -1.25 s is -2 seconds and 750,000,000 nanoseconds.
public struct Timestamp: Hashable, Sendable, Comparable, BitwiseCopyable {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    public var seconds: Int64
    /// Nanoseconds that are added to the seconds, 0…999,999,999.
    public var nanoseconds: UInt32

    @inlinable
    public init(seconds: Int64, nanoseconds: UInt32 = 0) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    @inlinable
    public static func < (lhs: Timestamp, rhs: Timestamp) -> Bool {
        (lhs.seconds, lhs.nanoseconds) < (rhs.seconds, rhs.nanoseconds)
    }
}

/// An extended attribute: its full name, for example `security.capability`, and its value.
public struct ExtendedAttribute: Hashable, Sendable, Codable {
    public var name: ByteString
    public var value: ByteString

    @inlinable
    public init(name: ByteString, value: ByteString) {
        self.name = name
        self.value = value
    }
}

/// The attributes that every inode has: permissions, owner, time and extended attributes.
public struct Metadata: Hashable, Sendable {
    /// The twelve permission bits (07777), without the file type.
    public var permissions: UInt16
    public var uid: UInt32
    public var gid: UInt32
    public var modified: Timestamp
    /// The extended attributes in ascending byte order of their names, which are unique.
    public private(set) var extendedAttributes: [ExtendedAttribute]

    public init(
        permissions: UInt16, uid: UInt32 = 0, gid: UInt32 = 0, modified: Timestamp = Timestamp(seconds: 0),
        extendedAttributes: [ExtendedAttribute] = []
    ) {
        self.permissions = permissions & 0o7777
        self.uid = uid
        self.gid = gid
        self.modified = modified
        self.extendedAttributes = []
        setExtendedAttributes(extendedAttributes)
    }

    /// - Parameter attributes: Extended attributes that are already sorted and unique.
    init(permissions: UInt16, uid: UInt32, gid: UInt32, modified: Timestamp, sorted attributes: [ExtendedAttribute]) {
        self.permissions = permissions
        self.uid = uid
        self.gid = gid
        self.modified = modified
        extendedAttributes = attributes
    }

    /// Sets all extended attributes and sorts them by name. If a name occurs more than once, the last value is kept.
    public mutating func setExtendedAttributes(_ attributes: [ExtendedAttribute]) {
        guard attributes.count > 1 else {
            extendedAttributes = attributes
            return
        }
        var latest: [ByteString: ByteString] = [:]
        for attribute in attributes { latest[attribute.name] = attribute.value }
        extendedAttributes = latest.map { ExtendedAttribute(name: $0.key, value: $0.value) }.sorted { $0.name < $1.name }
    }

    public subscript(attribute name: ByteString) -> ByteString? {
        extendedAttributes.first { $0.name == name }?.value
    }
}
