internal import ComposefsBytes

/// The distinct lists of extended attributes of a tree. Names, attributes and lists are stored once each, and have numbers.
struct AttributeStore: Sendable {
    private var names: DistinctBytes
    /// The number of the name, then the value.
    private var attributes: DistinctBytes
    /// The numbers of the attributes.
    private var lists: DistinctBytes
    /// The first lists, ready for use: most trees have few.
    private var first: [[ExtendedAttribute]] = []
    private var firstNumbers: [[ExtendedAttribute]: UInt32] = [:]
    private var firstBytes = 0
    /// The total size of names and values of all lists, in bytes.
    private(set) var byteCount = 0

    /// In bytes, with `attributeCost` for each attribute.
    private static let firstLimit = 1 << 19
    private static let attributeCost = 128
    private static let numberSize = MemoryLayout<UInt32>.size

    init(in memory: any LargeMemory) {
        names = DistinctBytes(in: memory)
        attributes = DistinctBytes(in: memory)
        lists = DistinctBytes(in: memory)
        insert([])
    }

    var isOutsideOfHeap: Bool { attributes.isOutsideOfHeap || lists.isOutsideOfHeap }
    var listCount: Int { lists.count }
    var attributeCount: Int { attributes.count }

    /// The number of a list; 0 is the empty one.
    @discardableResult
    mutating func insert(_ list: [ExtendedAttribute]) -> UInt32 {
        if list.isEmpty, lists.count > 0 { return 0 }
        if let known = firstNumbers[list] { return known }
        let numbers = list.map { insert($0) }
        let known = lists.count
        let number = numbers.withUnsafeBytes { lists.insert($0) }
        guard number == known else { return UInt32(number) }
        let size = list.reduce(0) { $0 + $1.name.count + $1.value.count }
        byteCount += size
        let cost = size + list.count * Self.attributeCost
        if number == first.count, firstBytes + cost <= Self.firstLimit {
            first.append(list)
            firstNumbers[list] = UInt32(number)
            firstBytes += cost
        }
        return UInt32(number)
    }

    private mutating func insert(_ attribute: ExtendedAttribute) -> UInt32 {
        let name = UInt32(attribute.name.bytes.withUnsafeBytes { names.insert($0) })
        let number = withUnsafeTemporaryAllocation(byteCount: Self.numberSize + attribute.value.count, alignment: Self.numberSize) { key in
            key.storeBytes(of: name, as: UInt32.self)
            UnsafeMutableRawBufferPointer(rebasing: key[Self.numberSize...]).copyBytes(from: attribute.value.bytes)
            return attributes.insert(UnsafeRawBufferPointer(key))
        }
        return UInt32(number)
    }

    subscript(list: UInt32) -> [ExtendedAttribute] {
        if Int(list) < first.count { return first[Int(list)] }
        return lists.withBytes(of: Int(list)) { numbers in
            (0..<(numbers.count / Self.numberSize)).map { index in
                withAttribute(Self.number(numbers, index)) { ExtendedAttribute(name: ByteString($0), value: ByteString($1)) }
            }
        }
    }

    func forEachAttribute<Failure: Error>(of list: UInt32, _ body: (Int) throws(Failure) -> Void) throws(Failure) {
        try lists.withBytes(of: Int(list)) { (numbers) throws(Failure) in
            for index in 0..<(numbers.count / Self.numberSize) { try body(Self.number(numbers, index)) }
        }
    }

    /// Passes name and value to `body`. The bytes are valid only during the call.
    func withAttribute<Result, Failure: Error>(
        _ number: Int, _ body: (_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try attributes.withBytes(of: number) { (attribute) throws(Failure) in
            try names.withBytes(of: Self.number(attribute, 0)) { (name) throws(Failure) in
                try body(name, UnsafeRawBufferPointer(rebasing: attribute[Self.numberSize...]))
            }
        }
    }

    private static func number(_ numbers: UnsafeRawBufferPointer, _ index: Int) -> Int {
        Int(numbers.loadUnaligned(fromByteOffset: index * numberSize, as: UInt32.self))
    }
}
