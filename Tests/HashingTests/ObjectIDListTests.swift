import ComposefsHashing
import Testing

@Suite struct ObjectIDLists {
    private func ids(_ algorithm: VerityAlgorithm) throws -> [ObjectID] {
        try (0..<700).map { number in
            // Common beginnings, and ends.
            var bytes = [UInt8](repeating: 0xaa, count: algorithm.digestSize)
            bytes[algorithm.digestSize / 2] = UInt8(number & 0xff)
            bytes[algorithm.digestSize / 2 + 1] = UInt8(number >> 8)
            return try #require(ObjectID(algorithm: algorithm, bytes: bytes))
        }
    }

    @Test(arguments: VerityAlgorithm.allCases) func numbers(algorithm: VerityAlgorithm) throws {
        let ids = try ids(algorithm)
        var table = ObjectIDTable(algorithm)
        for (number, id) in ids.enumerated() {
            #expect(table.number(of: id) == nil)
            #expect(table.insert(id) == number)
            #expect(table.insert(id) == number)
        }
        #expect(table.count == ids.count && Array(table.ids) == ids)
        for (number, id) in ids.enumerated() { #expect(table.number(of: id) == number) }
        let other = try #require(self.ids(algorithm == .sha256 ? .sha512 : .sha256).first)
        #expect(table.number(of: other) == nil)
    }

    @Test(arguments: VerityAlgorithm.allCases) func lists(algorithm: VerityAlgorithm) throws {
        let ids = try ids(algorithm)
        var list = ObjectIDList(algorithm)
        list.append(concatenated: ids.dropFirst().flatMap(\.bytes))
        list.append(ids[0])
        #expect(Array(list) == Array(ids.dropFirst()) + [ids[0]])
        #expect(list.dropFirst(5).first == ids[6])
        let literal: ObjectIDList = [ids[1], ids[2]]
        #expect(literal != list && Array(literal) == [ids[1], ids[2]])
        #expect(ObjectIDList(algorithm).isEmpty)
    }
}
