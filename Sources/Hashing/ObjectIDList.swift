package import ComposefsBytes

/// Identifiers of objects in a compact form: 32 bytes each with SHA-256, 64 with SHA-512.
public struct ObjectIDList: RandomAccessCollection, Sendable, Equatable, ExpressibleByArrayLiteral {
    /// That of all identifiers.
    public private(set) var algorithm: VerityAlgorithm
    private var words: LargeArray<UInt64>
    private var size: Int

    package init(_ algorithm: VerityAlgorithm, in memory: any LargeMemory = HeapMemory.shared) {
        self.algorithm = algorithm
        words = LargeArray(in: memory)
        size = algorithm.digestSize / MemoryLayout<UInt64>.size
    }

    /// - Parameter ids: of one algorithm.
    public init(arrayLiteral ids: ObjectID...) {
        self.init(ids.first?.algorithm ?? .sha256)
        for id in ids { append(id) }
    }

    public var startIndex: Int { 0 }
    public var endIndex: Int { words.count / size }

    public subscript(index: Int) -> ObjectID {
        words.withElements((index * size)..<((index + 1) * size)) { words in
            guard let id = ObjectID(algorithm: algorithm, bytes: UnsafeRawBufferPointer(words)) else {
                preconditionFailure("an identifier of another algorithm")
            }
            return id
        }
    }

    /// - Parameter id: of the list's algorithm.
    package mutating func append(_ id: ObjectID) {
        precondition(id.algorithm == algorithm, "an identifier of another algorithm")
        id.withUnsafeBytes { words.append(contentsOf: $0.bindMemory(to: UInt64.self)) }
    }

    /// Appends the digests of objects that follow each other.
    package mutating func append(concatenated digests: [UInt8]) {
        precondition(digests.count % algorithm.digestSize == 0, "a part of a digest")
        for start in stride(from: 0, to: digests.count, by: algorithm.digestSize) {
            digests[start..<(start + algorithm.digestSize)].withUnsafeBytes { digest in
                for word in 0..<size { words.append(digest.loadUnaligned(fromByteOffset: word * 8, as: UInt64.self)) }
            }
        }
    }

    func isEqual(_ index: Int, _ id: ObjectID) -> Bool {
        words.withElements((index * size)..<((index + 1) * size)) { words in
            id.withUnsafeBytes { compareBytes(UnsafeRawBufferPointer(words), $0) == 0 }
        }
    }

    public static func == (lhs: ObjectIDList, rhs: ObjectIDList) -> Bool { lhs.elementsEqual(rhs) }
}

/// Distinct identifiers of objects, numbered in the order in which they were added.
package struct ObjectIDTable: Sendable {
    package private(set) var ids: ObjectIDList
    private var table: LargeTable

    package init(_ algorithm: VerityAlgorithm, in memory: any LargeMemory = HeapMemory.shared) {
        ids = ObjectIDList(algorithm, in: memory)
        table = LargeTable(in: memory)
    }

    package var count: Int { ids.count }

    package func number(of id: ObjectID) -> Int? { find(id, Self.hash(id)) }

    /// The number of an identifier, which is added if it is new.
    package mutating func insert(_ id: ObjectID) -> Int {
        let hash = Self.hash(id)
        if let known = find(id, hash) { return known }
        let number = ids.count
        precondition(number < Int(UInt32.max) - 1, "more objects than a table has numbers")
        ids.append(id)
        table.insert(UInt32(number), hash: hash)
        return number
    }

    private func find(_ id: ObjectID, _ hash: UInt32) -> Int? {
        guard id.algorithm == ids.algorithm else { return nil }
        return table.find(hash: hash) { ids.isEqual(Int($0), id) }.map(Int.init)
    }

    /// Seeded per process: the author of an image can choose digests with a common prefix.
    private static func hash(_ id: ObjectID) -> UInt32 {
        var hasher = Hasher()
        id.withUnsafeBytes { hasher.combine(bytes: $0) }
        return UInt32(truncatingIfNeeded: hasher.finalize())
    }
}
