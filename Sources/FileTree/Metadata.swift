public import ComposefsBytes

/// A point in time as file systems keep it: floor-based, so -1.25 s is seconds -2 and nanoseconds 750,000,000.
public struct Timestamp: Hashable, Sendable, Comparable {
    /// Whole seconds since 1970-01-01 UTC.
    public var seconds: Int64
    /// 0…999,999,999, added to the seconds.
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

/// One extended attribute: its full name (`security.capability`) and its value.
public struct ExtendedAttribute: Hashable, Sendable {
    public var name: ByteString
    public var value: ByteString

    @inlinable
    public init(name: ByteString, value: ByteString) {
        self.name = name
        self.value = value
    }
}

/// What every inode has: permissions, owner, time, extended attributes.
public struct Metadata: Hashable, Sendable {
    /// The twelve permission bits (07777); type bits are not kept here.
    public var permissions: UInt16
    public var uid: UInt32
    public var gid: UInt32
    public var modified: Timestamp
    /// In ascending byte order of the name, each name once.
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

    /// Attributes that are in order already.
    init(permissions: UInt16, uid: UInt32, gid: UInt32, modified: Timestamp, sorted attributes: [ExtendedAttribute]) {
        self.permissions = permissions
        self.uid = uid
        self.gid = gid
        self.modified = modified
        extendedAttributes = attributes
    }

    /// Sorts by name; of several values for one name the last is kept.
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
